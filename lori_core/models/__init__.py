"""Base models: their files, identity, modules and the names PEFT gives them."""
