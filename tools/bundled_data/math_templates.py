"""The stories behind `math.py`: data only, written for this project.

A story is one line, `slug | text | steps`. In the text `{A}`, `{B}`, `{C}` are people, `{a}` … `{e}`
numbers, and a pool's name (`{fruit}`, plural `{fruits}`, a second one `{fruits2}`) one of its
entities. In the steps `p`, `q`, `r` are the results of the first, second and third step.
"""

from __future__ import annotations

# Pool -> (entities of train and validation, entities of test). `box:boxes` gives an odd plural.
POOLS: dict[str, tuple[str, str]] = {
    "item": (
        "pen marble sticker button bead card ribbon stamp shell crayon candle badge magnet pencil "
        "puzzle balloon",
        "eraser whistle postcard thimble spoon lantern kite medal pebble notebook feather bracelet",
    ),
    "fruit": (
        "apple pear plum orange lemon peach:peaches banana fig tomato:tomatoes carrot onion pepper",
        "mango:mangoes apricot melon turnip cherry:cherries radish:radishes cucumber lime quince",
    ),
    "plant": (
        "rose tulip daisy:daisies lily:lilies fern pansy:pansies sunflower violet",
        "iris:irises orchid daffodil poppy:poppies cactus:cactuses peony:peonies marigold",
    ),
    "animal": (
        "hen goat cow duck pig rabbit horse dog cat goose:geese",
        "turkey llama pony:ponies donkey swan hamster pigeon alpaca",
    ),
    "bake": (
        "muffin roll cookie pie bun cake waffle pretzel",
        "scone bagel tart pancake doughnut croissant brownie",
    ),
    "pack": (
        "box:boxes bag basket jar tray crate tin packet",
        "drawer pouch:pouches bucket folder chest bowl sack",
    ),
    "read": (
        "book comic magazine story:stories letter",
        "novel diary:diaries guidebook poem brochure",
    ),
}

PEOPLE: tuple[str, str] = (
    "Anna Ben Carla David Emma Felix Grace Henry Irene Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tina "
    "Victor Wendy Adam Bella Carlos Diana Erik Fatima George Hannah Ivan Julia Kevin Laura Marco Nina "
    "Oscar Petra Robin Sofia Tom Uma Vera Walter Yusuf Zoe",
    "Amir Beatrice Cyril Dolores Edgar Farah Gustav Hilda Ingrid Jonas Keiko Lionel Mabel Nadia Omar "
    "Priya Quentin Ruth Stefan Tamara Ulrich Violeta Wilma Xavier Yara Zelda Bruno Esther Hugo Selma",
)

STORIES: dict[tuple[str, str], str] = {
    ("train", "one-step"): """
buy-more | {A} has {a} {items} and buys {b} more. How many {items} does {A} have now? | a + b
two-friends | {A} owns {a} {items} and {B} owns {b}. How many {items} do they own together? | a + b
give-away | {A} had {a} {items} and gave {b} to {B}. How many {items} are left? | a - b
eat-some | There were {a} {bakes} on a plate. {A} ate {b}. How many {bakes} are still there? | a - b
full-packs | {A} fills {a} {packs} with {b} {items} each. How many {items} is that? | a * b
share-out | {A} shares {a} {fruits} equally among {b} friends. How many does each friend get? | a / b
pick-two-days | {A} picks {a} {fruits} on Monday and {b} on Tuesday. How many {fruits} in all? | a + b
rotten | Of {a} {fruits}, {b} are rotten. How many {fruits} are good? | a - b
price-times | One {item} costs {a} dollars. How many dollars do {b} {items} cost? | a * b
price-each | {a} {items} of the same price cost {b} dollars. How much is one {item}? | b / a
change | {A} pays with {a} dollars for a {item} that costs {b} dollars. How much change is due? | a - b
saving-week | {A} saves {a} dollars every week. How many dollars is that after {b} weeks? | a * b
bus-on | A bus carries {a} people. At the stop {b} more get on. How many people are on the bus? | a + b
bus-off | A bus carries {a} people and {b} get off. How many people stay on? | a - b
rows-of | {A} plants {a} rows of {b} {plants}. How many {plants} are planted? | a * b
beds-equal | {a} {plants} stand in {b} equal rows. How many {plants} are in a row? | a / b
flowers-cut | The garden had {a} {plants} and {A} cut {b}. How many {plants} remain? | a - b
farm-sum | A farm keeps {a} {animals} and {b} {animals2}. How many animals are there? | a + b
farm-sold | A farmer has {a} {animals} and sells {b}. How many {animals} are left? | a - b
feed-each | Each {animal} eats {a} kilos of food a day. How many kilos do {b} {animals} eat? | a * b
pages-left | A {read} has {a} pages. {A} has read {b}. How many pages are left? | a - b
pages-days | {A} reads {a} pages a day. How many pages does {A} read in {b} days? | a * b
shelves | {A} puts {a} {reads} on {b} shelves, the same number on each. How many per shelf? | a / b
goals | A team scored {a} goals in spring and {b} in autumn. How many goals in total? | a + b
points-behind | {A} has {a} points and {B} has {b}. By how many points is {A} ahead? | a - b
teams | {A} puts {a} children in teams of {b}. How many teams are there? | a / b
bake-trays | {A} bakes {a} trays of {b} {bakes}. How many {bakes} are baked? | a * b
older | {A} is {a} years old and {B} is {b} years older. How old is {B}? | a + b
walk-more | {A} walks {a} kilometres before lunch and {b} after. How far does {A} walk? | a + b
way-left | The way to the lake is {a} kilometres and {A} has walked {b}. How many are left? | a - b
twice | {B} has {a} {items}. {A} has twice as many. How many {items} does {A} have? | a * 2
half | {A} had {a} {fruits} and used half of them. How many were used? | a / 2
temperature | It was {a} degrees and got {b} degrees warmer. How warm is it now? | a + b
pack-count | {A} puts {a} {items} into {packs} of {b}. How many {packs} are filled? | a / b
minutes | {A} sings {b} songs of {a} minutes each. How many minutes does {A} sing? | a * b
more-than | {A} has {a} {items}, {b} more than {B}. How many {items} does {B} have? | a - b
needed | {A} wants {a} {items} and has {b}. How many {items} are missing? | a - b
wheels | {A} builds {a} carts with 4 wheels each. How many wheels are needed? | a * 4
chairs | A hall has {a} chairs; {b} are taken. How many chairs are free? | a - b
found | After finding {a} {items}, {A} puts them with the {b} at home. How many are there? | a + b
""",
    ("validation", "one-step"): """
collect-class | Class one collects {a} {items} and class two {b}. How many {items} do they collect? | a + b
lost-some | {A} started with {a} {items} but lost {b}. How many does {A} still hold? | a - b
stacks | {A} builds {a} stacks of {b} {items}. How many {items} are used? | a * b
cut-rope | {A} cuts a rope of {a} metres into {b} equal parts. How long is each part? | a / b
train-cars | {A} drives a train of {a} cars with {b} seats each. How many seats does it have? | a * b
guests | {a} guests are at the party and {b} more come. How many guests are there? | a + b
milk | {A} has {a} litres of milk and uses {b}. How many litres are left? | a - b
triple | {A} jumped {a} times; {B} jumped three times as often. How often did {B} jump? | a * 3
pens-pairs | {a} {animals} live in {b} equal barns. How many {animals} live in each barn? | a / b
younger | {A} is {a} years old. {B} is {b} years younger. How old is {B}? | a - b
""",
    ("test", "one-step"): """
museum | {a} tourists visit a museum in the morning and {b} in the evening. How many visit it? | a + b
wallet | {A}'s wallet held {a} coins before {b} were spent. How many coins does it hold now? | a - b
pouches-full | Every {pack} holds {a} {items}. How many {items} do {b} {packs} hold? | a * b
tables | {A} spreads {a} {bakes} evenly over {b} tables. How many {bakes} are on one table? | a / b
orchard | A tree gave {a} {fruits} last year and {b} this year. How many {fruits} did it give? | a + b
pasture | Out of {a} {animals}, {b} run away. How many {animals} stay? | a - b
chapters | Each chapter of a {read} takes {a} hours. How long do {b} chapters take? | a * b
tiles | {A} covers {b} equal walls with {a} tiles. How many tiles are on one wall? | a / b
laps | {A} swims {a} laps and {B} swims {b} laps. How many laps do they swim altogether? | a + b
greenhouse | A greenhouse grew {a} {plants}; {b} were sold. How many {plants} does it still have? | a - b
tickets | A ticket costs {a} euros. How many euros does {A} pay for {b} tickets? | a * b
legs | {A} draws {a} spiders with 8 legs each. How many legs is that? | a * 8
score-gap | {A} threw {a} darts, and {B} threw {b} fewer. How many darts did {B} throw? | a - b
gift | {A} received {a} {items} from {B} and {b} from {C}. How many {items} did {A} receive? | a + b
ladder | A ladder of {a} steps was climbed up to step {b}. How many steps are above? | a - b
crew | {A} splits {a} sailors into {b} equal crews. How many sailors make a crew? | a / b
""",
    ("train", "two-step"): """
packs-minus | {A} has {a} {packs} of {b} {items} and gives away {c} {items}. How many {items} are left? | a * b ; p - c
packs-plus | {A} buys {a} {packs} with {b} {fruits} each and finds {c} more {fruits}. How many {fruits} are there? | a * b ; p + c
buy-change | {A} buys {a} {items} for {b} dollars each and pays with {c} dollars. How much change does {A} get? | a * b ; c - p
sum-share | {A} has {a} {fruits} and {B} has {b}. They share them equally among {c} people. How many does each get? | a + b ; p / c
left-share | {A} baked {a} {bakes}, kept {b} and split the rest equally among {c} neighbours. How many did each get? | a - b ; p / c
three-days | {A} read {a} pages on Monday, {b} on Tuesday and {c} on Friday. How many pages were read? | a + b ; p + c
on-and-off | A bus has {a} people. {b} get off and {c} get on. How many people are on the bus? | a - b ; p + c
garden-rows | {A} plants {a} rows of {b} {plants}, but {c} {plants} die. How many live? | a * b ; p - c
twice-plus | {A} has {a} {items}. {B} has twice as many. How many {items} do they have together? | a * 2 ; a + p
fewer-both | {A} owns {a} {items}. {B} owns {b} fewer. How many {items} do both own? | a - b ; a + p
more-both | {A} picks {a} {fruits}. {B} picks {b} more than {A}. How many {fruits} do both pick? | a + b ; a + p
two-prices | A {item} costs {a} dollars and a {item2} costs {b}. What do {c} of each cost together? | a + b ; p * c
eggs | {a} hens lay {b} eggs each. {A} breaks {c} of them. How many eggs are whole? | a * b ; p - c
save-buy | {A} saves {a} dollars a week for {b} weeks and spends {c}. How many dollars are left? | a * b ; p - c
books-shelf | {A} has {a} {reads}, buys {b} more and fills {c} shelves equally. How many per shelf? | a + b ; p / c
score | {A} scores {a} goals worth {b} points each and loses {c} points. What is the score? | a * b ; p - c
pack-price | {a} {packs} hold {b} {items} in all. What do {c} of these {packs} hold? | b / a ; p * c
ages | {A} is {a}. {B} is {b} years older than {A} and {C} is {c} years older than {B}. How old is {C}? | a + b ; p + c
walk-back | {A} walks {a} kilometres to school and back each day. How far is that in {b} days? | a * 2 ; p * b
half-more | {A} gives half of {a} {items} to {B} and then finds {b}. How many does {A} have now? | a / 2 ; p + b
use-twice | From {a} eggs {A} uses {b} for breakfast and {c} for a cake. How many eggs are left? | a - b ; p - c
seats | A room has {a} rows of {b} seats. {c} more seats are brought in. How many seats are there? | a * b ; p + c
price-off | A {item} costs {a} dollars but is {b} dollars cheaper today. What do {c} cost today? | a - b ; p * c
teams-left | {a} of {b} children are ill. The others form {c} equal teams. How many are in a team? | b - a ; p / c
missing-money | {A} has {a} dollars and {B} has {b}. A {item} costs {c}. How many dollars are missing? | a + b ; c - p
feed-days | {a} {animals} eat {b} kilos each per day. From {c} kilos, how many are left after a day? | a * b ; c - p
""",
    ("validation", "two-step"): """
crate-plus | {A} loads {a} crates of {b} {fruits} and {c} loose ones. How many {fruits} are loaded? | a * b ; p + c
paint | {A} has {a} litres of paint, buys {b} and uses {c}. How many litres remain? | a + b ; p - c
cake-cut | {a} cakes are cut into {b} slices each and shared by {c} people. How many slices does each get? | a * b ; p / c
rope-pieces | {A} cuts {a} metres off a rope of {b} metres and halves the rest. How long is each half? | b - a ; p / 2
parking | {a} cars are parked. {b} leave, then {c} arrive. How many cars are parked now? | a - b ; p + c
triple-both | {A} found {a} {items} and {B} three times as many. How many did they find together? | a * 3 ; a + p
""",
    ("test", "two-step"): """
market-day | {A} sells {a} {fruits} before noon and {b} later, at {c} coins each. How many coins come in? | a + b ; p * c
drawers | {a} {packs} contain {b} {items} each; {A} removes {c} {items}. How many {items} stay inside? | a * b ; p - c
ferry | A ferry takes {a} cyclists, then {b} more, and {c} leave. How many cyclists are aboard? | a + b ; p - c
wage | {A} works {a} hours at {b} euros an hour and gets a tip of {c} euros. How much is earned? | a * b ; p + c
poster | {A} prints {a} posters, spoils {b} and hangs the others in {c} halls evenly. How many per hall? | a - b ; p / c
vases | {A} puts {a} {plants} in each of {b} vases and keeps {c} over. How many {plants} were there? | a * b ; p + c
stable | A stable of {a} {animals} buys {b}, then puts all in {c} equal groups. How large is a group? | a + b ; p / c
run-week | {A} runs {a} miles a day for {b} days; {B} runs {c} miles fewer in total. How many miles does {B} run? | a * b ; p - c
pair-read | {A} finished {a} {reads} and {B} finished {b} fewer. How many {reads} did the two finish? | a - b ; a + p
budget | A class has {a} euros. It buys {b} maps at {c} euros each. How many euros remain? | b * c ; a - p
double-crop | Last year {A} grew {a} {fruits}, this year double. How many {fruits} is that over both years? | a * 2 ; a + p
""",
    ("train", "three-step"): """
two-kinds | {A} buys {a} {items} at {b} dollars and {c} {items2} at {d} dollars. How many dollars is that? | a * b ; c * d ; p + q
packs-shared | {A} has {a} {packs} of {b} {bakes}. {c} are eaten and the rest shared by {d} friends. How many does each get? | a * b ; p - c ; q / d
bus-three | A bus has {a} people. {b} get on, {c} get off, then {d} get on. How many people are there? | a + b ; p - c ; q + d
farm-legs | A farm has {a} {animals} and {b} {animals2}, sells {c} and splits the rest into {d} equal pens. How many per pen? | a + b ; p - c ; q / d
twice-minus | {A} has {a} {items}. {B} has twice as many but loses {b}. How many do they have together? | a * 2 ; p - b ; a + q
weeks | {A} saves {a} dollars a week for {b} weeks, gets {c} more and spends {d}. How many are left? | a * b ; p + c ; q - d
two-gardens | {A} plants {a} rows of {b} {plants} and {B} plants {c} rows of {d}. How many more does {A} plant? | a * b ; c * d ; p - q
both-share | {A} picks {a} {fruits}, {B} picks {b} more than {A}. They fill {c} {packs} equally. How many per {pack}? | a + b ; a + p ; q / c
change-two | {A} buys a {item} for {a} dollars and {b} {items2} for {c} dollars each, with {d} dollars. How much is left? | b * c ; a + p ; d - q
read-left | A {read} has {a} pages. {A} reads {b} pages a day for {c} days, then {d} more. How many are left? | b * c ; p + d ; a - q
three-people | {A} has {a} {items}, {B} has {b} more than {A}, {C} has {c} fewer than {B}. How many does {C} hold after losing {d}? | a + b ; p - c ; q - d
eggs-boxes | {a} hens lay {b} eggs each. {A} uses {c} and packs the rest in boxes of {d}. How many boxes? | a * b ; p - c ; q / d
half-then | {A} eats half of {a} {fruits}, buys {b} and gives {c} away. How many are left? | a / 2 ; p + b ; q - c
match | {A} throws {a} balls of {b} points and {c} balls of 2 points. How many points is that? | a * b ; c * 2 ; p + q
classes | A class of {a} gets {b} new pupils; {c} are away. The others sit in {d} equal rows. How many per row? | a + b ; p - c ; q / d
discount | A {item} of {a} dollars is {b} dollars off. {A} buys {c} and pays {d} for a bag. What is the total? | a - b ; p * c ; q + d
""",
    ("validation", "three-step"): """
party | {A} buys {a} bags of {b} {bakes}, adds {c} and serves them on {d} equal plates. How many per plate? | a * b ; p + c ; q / d
work-two | {A} earns {a} dollars an hour for {b} hours, {B} earns {c} dollars an hour for {d}. How much do both earn? | a * b ; c * d ; p + q
tank | A tank has {a} litres. {b} leak out, {c} are added and {d} are used. How many litres are left? | a - b ; p + c ; q - d
trip | {A} drives {a} kilometres, then {b}, then twice as far as at first. How long is the trip? | a + b ; a * 2 ; p + q
""",
    ("test", "three-step"): """
stall | {A} sells {a} {bakes} at {b} coins and {c} {bakes2} at {d} coins. How many coins are taken? | a * b ; c * d ; p + q
harvest | {A} gathers {a} {fruits}, {B} gathers {b}. They throw out {c} and fill {d} {packs} evenly. How many per {pack}? | a + b ; p - c ; q / d
cinema | A cinema has {a} rows of {b} places. {c} are broken and {d} are sold. How many places are open? | a * b ; p - c ; q - d
herd | {A} keeps {a} {animals}. {B} keeps {b} fewer. Together they buy {c}. How many do they have in all? | a - b ; a + p ; q + c
bracelets | {A} makes {a} {items} a day for {b} days, sells {c} and receives {d}. How many {items} does {A} have? | a * b ; p - c ; q + d
library-cart | A cart carries {a} {reads}. {b} are added, {c} taken, and the rest go to {d} rooms equally. How many per room? | a + b ; p - c ; q / d
two-hikes | {A} hikes {a} miles on each of {b} days, {B} {c} miles on each of {d} days. How much further does {A} hike? | a * b ; c * d ; p - q
""",
    ("train", "four-step"): """
shop-trip | {A} buys {a} {items} at {b} dollars and {c} {items2} at {d} dollars, with {e} dollars off. How many dollars does {A} pay? | a * b ; c * d ; p + q ; r - e
two-kinds-change | {A} buys {a} {items} at {b} dollars and {c} {items2} at {d} dollars and pays with {e} dollars. How much change is due? | a * b ; c * d ; p + q ; e - r
both-farms | {A} has {a} pens of {b} {animals} and {B} has {c} pens of {d}. They sell {e} of all. How many {animals} are left? | a * b ; c * d ; p + q ; r - e
three-share | {A} has {a} {fruits}, {B} has {b} and {C} has {c}. They eat {d} and put the rest equally into {e} {packs}. How many per {pack}? | a + b ; p + c ; q - d ; r / e
bus-four | A bus starts with {a} people. {b} get on, {c} get off, {d} get on and {e} get off. How many people stay? | a + b ; p - c ; q + d ; r - e
twice-share | {A} has {a} {items} and {B} twice as many. They buy {b} more and share all among {c} friends. How many does each get? | a * 2 ; a + p ; q + b ; r / c
bake-sale | {A} bakes {a} trays of {b} {bakes}, burns {c} and sells the rest in bags of {d} for {e} dollars a bag. How many dollars is that? | a * b ; p - c ; q / d ; r * e
save-two | {A} saves {a} dollars a week for {b} weeks, {B} saves {c} a week for {d}. Together they spend {e}. How many are left? | a * b ; c * d ; p + q ; r - e
read-week | {A} read {a} pages on Monday, {b} more on Tuesday than on Monday, and {c} on Friday. Of {d} pages, how many are left? | a + b ; a + p ; q + c ; d - r
garden-four | {A} plants {a} rows of {b} {plants}. {c} die, {d} new ones are set, and all are sold in {e} equal lots. How many per lot? | a * b ; p - c ; q + d ; r / e
class-trip | {a} pupils and {b} parents go on a trip. {c} stay home. The others fill {d} cars equally, and {e} more sit in each. How many per car? | a + b ; p - c ; q / d ; r + e
half-four | {A} gives half of {a} {items} to {B}, finds {b}, loses {c} and buys {d}. How many {items} does {A} have? | a / 2 ; p + b ; q - c ; r + d
""",
    ("validation", "four-step"): """
stall-two | {A} sells {a} {bakes} at {b} dollars and {c} {fruits} at {d} dollars, then spends {e}. How many dollars are left? | a * b ; c * d ; p + q ; r - e
hike | {A} walks {a} kilometres, {B} walks {b} more, {C} walks {c}. The path has {d} kilometres in all. How many are not walked? | a + b ; a + p ; q + c ; d - r
boxes-four | {A} packs {a} {packs} of {b} {items}, adds {c}, takes out {d} and shares all among {e} rooms. How many per room? | a * b ; p + c ; q - d ; r / e
""",
    ("test", "four-step"): """
fair | At a fair {A} sells {a} {items} at {b} coins and {B} sells {c} at {d} coins. The stand costs {e} coins. How many coins remain? | a * b ; c * d ; p + q ; r - e
ferry-four | A ferry leaves with {a} cyclists. {b} leave, {c} board, {d} leave and {e} board. How many cyclists are aboard? | a - b ; p + c ; q - d ; r + e
three-pickers | {A} gathers {a} {fruits}, {B} gathers {b} more than {A}. They lose {c} and fill {d} {packs} evenly. How many per {pack}? | a + b ; a + p ; q - c ; r / d
kitchen | A cook makes {a} pans of {b} {bakes}, drops {c}, plates the others in sets of {d} and sells each set for {e} coins. How many coins come in? | a * b ; p - c ; q / d ; r * e
two-stables | {A}'s stable has {a} stalls of {b} {animals}, {B}'s has {c} stalls of {d}. {e} {animals} arrive. How many are there in all? | a * b ; c * d ; p + q ; r + e
""",
}

# A chain tells one event after another. Its template is the chain's name and the order of events:
# `+` takes the next gain, `-` the next loss, and a last `/` or `*` turns the rest into a question.
CHAIN_EVENTS: dict[str, tuple[str, ...]] = {
    "two-step": ("+-", "-+", "+/", "-*", "-/"),
    "three-step": ("+-+", "-+-", "+-/", "-+*"),
    "four-step": ("+-+-", "-+-+", "+-+/", "--+*"),
}

# Split -> lines `slug | opening | gains | losses | ask + - | ask / | ask *`; `{v}` is the number.
CHAINS: dict[str, str] = {
    "train": """
jar | {A}'s jar holds {a} {items}. | {A} puts in {v}. & {B} adds {v}. | {A} takes out {v}. & {v} fall out. | How many {items} are in the jar? | {A} deals them to {v} children equally. How many does each get? | Each is sold for {v} dollars. How many dollars is that?
orchard-cart | A cart carries {a} {fruits}. | {v} more are loaded. & {A} lays {v} on top. | {v} are sold. & {v} go bad. | How many {fruits} does the cart carry? | They fill {v} boxes equally. How many are in a box? | Each one sells for {v} dollars. How many dollars come in?
meadow | {a} {animals} stand in a meadow. | {v} come in. & {A} brings {v}. | {v} wander off. & {A} sells {v}. | How many {animals} are in the meadow? | They go into {v} equal groups. How many are in a group? | Each eats {v} kilos. How many kilos is that?
bakery | {A} has {a} {bakes} to sell. | {A} bakes {v} more. & {B} delivers {v}. | Guests buy {v}. & {v} are burnt. | How many {bakes} does {A} have? | {A} lays them on {v} plates equally. How many are on a plate? | Each costs {v} dollars. How much are they worth?
shelf | A shelf has {a} {reads}. | {v} are brought back. & {A} donates {v}. | {v} are lent. & {B} borrows {v}. | How many {reads} are on the shelf? | They go to {v} classes equally. How many does a class get? | Each weighs {v} kilos. How many kilos is that?
purse | {A} has {a} dollars. | {A} earns {v}. & {B} pays back {v}. | {A} spends {v}. & A {item} costs {v}. | How many dollars does {A} have now? | {A} splits them equally among {v} cousins. How many does each get? | An uncle makes it {v} times as much. How many dollars is that?
game | {A} has {a} points in a game. | {A} wins {v}. & A bonus gives {v}. | {A} loses {v}. & A foul costs {v}. | How many points does {A} have? | They are shared by a team of {v}. How many per player? | The final round makes them count {v} times. How many points is that?
""",
    "validation": """
bench-garden | A bed grows {a} {plants}. | {v} come up. & {A} plants {v}. | {v} are picked. & {v} freeze. | How many {plants} are in the bed? | {A} ties them in {v} equal bunches. How many are in a bunch? | Each has {v} leaves. How many leaves is that?
barrel | A barrel holds {a} litres. | Rain adds {v}. & {A} pours in {v}. | {A} uses {v}. & {v} run out. | How many litres are in it? | It is poured into {v} equal cans. How many litres are in a can? | A litre costs {v} dollars. How many dollars is it worth?
""",
    "test": """
harbour | {a} boats lie in a harbour. | {v} sail in. & {v} are launched. | {v} sail out. & A storm sinks {v}. | How many boats lie there? | They moor evenly at {v} piers. How many are at a pier? | Every boat has {v} sails. How many sails is that?
attic | {A} keeps {a} {items} in the attic. | {B} hands over {v}. & {v} turn up in a corner. | {v} get broken. & {A} throws away {v}. | How many {items} stay in the attic? | {A} sorts them evenly into {v} {packs}. How many are in a {pack}? | {B} offers {v} coins for each. How many coins is that?
nursery | A nursery owns {a} {plants}. | {v} sprout. & A truck brings {v}. | Snails ruin {v}. & Customers take {v}. | How many {plants} does it own? | They stand evenly on {v} tables. How many are on a table? | Every one needs {v} cups of water. How many cups is that?
""",
}
