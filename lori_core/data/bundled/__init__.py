"""The bundled data sets as JSON Lines, one file a set; `tools/bundled_data` wrote them."""
