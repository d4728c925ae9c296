"""Facts for the questions of `nlu`: who belongs where, and what goes with what.

A category is `name/close: members`. Whoever is in it may also count as something `close`, so the
two are never set against each other. After a name with `*` the members stand without an article.

A fact is `subject=value/also`: `also` would be right too, so it is never offered as a wrong answer.
`subject=value>wrong` allows that one wrong answer only.
"""

CATEGORIES = """
bird: robin, crow, owl, eagle, sparrow, penguin, swan, parrot, pigeon, ostrich, seagull, woodpecker, falcon, flamingo, magpie
fish: salmon, trout, tuna, shark, herring, carp, cod, sardine, pike, haddock, goldfish, eel
insect: ant, bee, wasp, moth, beetle, mosquito, grasshopper, ladybird, butterfly, dragonfly, termite, flea
mammal: dog, cat, horse, cow, lion, elephant, rabbit, whale, tiger, wolf, sheep, goat, pig, monkey, camel, giraffe, kangaroo, squirrel, otter, bear, fox, deer, dolphin
reptile: snake, lizard, crocodile, tortoise, gecko, iguana, alligator, chameleon, cobra, viper
fruit/tree/vegetable: apple, pear, banana, grape, peach, mango, plum, strawberry, pineapple, melon, lemon, apricot, raspberry, papaya, blueberry
vegetable/fruit: carrot, potato, onion, cabbage, cauliflower, turnip, leek, lettuce, radish, parsnip, beetroot, artichoke
flower: tulip, daisy, lily, orchid, daffodil, sunflower, carnation, poppy, dandelion, marigold, snowdrop, bluebell
tree/fruit: oak, pine, maple, birch, willow, cedar, elm, beech, fir, spruce, sycamore, poplar
tool/kitchen utensil/container: hammer, saw, screwdriver, spanner, drill, chisel, axe, spade, rake, crowbar, mallet, trowel
musical instrument/toy: violin, guitar, piano, flute, trumpet, drum, harp, cello, clarinet, trombone, banjo, accordion, saxophone, oboe
vehicle/toy/boat: car, bus, lorry, bicycle, train, tram, van, tractor, motorcycle, taxi, ambulance, helicopter, scooter
boat/vehicle/toy: canoe, yacht, dinghy, gondola, raft, kayak, barge, trawler
garment: shirt, coat, skirt, sweater, jacket, dress, scarf, glove, sock, blouse, waistcoat, cardigan
piece of furniture/container: chair, table, sofa, wardrobe, desk, bookcase, stool, bench, cupboard, armchair, dresser
job: doctor, teacher, baker, nurse, plumber, carpenter, lawyer, farmer, pilot, butcher, electrician, dentist, tailor, barber, architect, journalist
sport*/game/dance: football, tennis, hockey, rugby, golf, swimming, basketball, volleyball, badminton, rowing, boxing, judo, wrestling
dance/sport/game: waltz, tango, polka, samba, rumba, minuet, quickstep, jive
colour*: red, blue, green, yellow, purple, pink, brown, grey, black, white, beige, crimson
metal*: iron, copper, steel, zinc, aluminium, brass, bronze, nickel, titanium, platinum
gemstone/shape/colour: ruby, emerald, sapphire, diamond, opal, topaz, amethyst, garnet
shape: circle, square, triangle, rectangle, oval, pentagon, hexagon, cube, rhombus, octagon
fabric*/garment: cotton, silk, wool, linen, velvet, denim, nylon, satin, flannel, polyester, corduroy, tweed
spice*/tree/vegetable: cinnamon, ginger, nutmeg, saffron, turmeric, paprika, cumin, cardamom
drink*: tea, coffee, milk, lemonade, cocoa, beer, wine, cider, cola
cheese*: cheddar, brie, mozzarella, feta, gouda, parmesan, camembert
country*: France, Germany, Italy, Spain, Japan, China, Egypt, Greece, Canada, Norway, Sweden, Ireland, Poland, Cuba, Peru, Kenya
river*: the Nile, the Amazon, the Thames, the Danube, the Rhine, the Mississippi, the Ganges, the Seine, the Volga
room/building: kitchen, bedroom, bathroom, attic, cellar, hallway, pantry, dining room
building/room: castle, church, hospital, museum, barn, cottage, cathedral, factory, hotel, palace, lighthouse
body part: arm, knee, elbow, nose, shoulder, ankle, ear, thumb, wrist, chin, neck, tongue
container/kitchen utensil/tool: bucket, jar, basket, bottle, barrel, crate, vase, suitcase, sack
kitchen utensil/tool/container: spoon, fork, ladle, whisk, spatula, grater, colander, rolling pin, corkscrew, sieve
toy/game: doll, teddy bear, kite, yo-yo, spinning top, rattle, rocking horse
game*/sport/toy: chess, draughts, dominoes, bingo, poker, ludo, hopscotch
illness*: flu, measles, malaria, mumps, asthma, tuberculosis, chickenpox
planet*: Mars, Venus, Jupiter, Saturn, Neptune, Uranus
feeling*: joy, anger, fear, sadness, envy, pride, disgust, grief
dog breed/mammal: poodle, beagle, greyhound, dachshund, spaniel, bulldog, labrador
currency: dollar, euro, yen, rupee, peso, zloty, krona
piece of jewellery: ring, necklace, bracelet, brooch, earring, tiara
"""

TABLES = {
    "capital": """
France=Paris, Germany=Berlin, Italy=Rome, Spain=Madrid, Portugal=Lisbon, Japan=Tokyo, China=Beijing
Egypt=Cairo, Greece=Athens, Russia=Moscow, Canada=Ottawa, Norway=Oslo, Sweden=Stockholm
Finland=Helsinki, Denmark=Copenhagen, Ireland=Dublin, Poland=Warsaw, Austria=Vienna
Hungary=Budapest, Cuba=Havana, Peru=Lima, Chile=Santiago, Kenya=Nairobi, India=New Delhi
Thailand=Bangkok, Turkey=Ankara, Iran=Tehran, Iraq=Baghdad, Belgium=Brussels, Argentina=Buenos Aires
Brazil=Brasilia, Australia=Canberra, Iceland=Reykjavik, Ukraine=Kyiv, Romania=Bucharest
Bulgaria=Sofia, Croatia=Zagreb, Serbia=Belgrade, Vietnam=Hanoi, Nepal=Kathmandu, Syria=Damascus
Lebanon=Beirut, Colombia=Bogota, Ecuador=Quito, Venezuela=Caracas, Morocco=Rabat, Algeria=Algiers
Ghana=Accra, Jamaica=Kingston, Pakistan=Islamabad
""",
    "continent": """
France=Europe, Germany=Europe, Italy=Europe, Spain=Europe, Japan=Asia, China=Asia, Greece=Europe
Canada=North America, Norway=Europe, Mexico=North America, Cuba=North America/South America
Peru=South America, Chile=South America, Kenya=Africa, India=Asia, Thailand=Asia, Iran=Asia, Iraq=Asia
Argentina=South America, Brazil=South America, Romania=Europe, Vietnam=Asia, Nepal=Asia
Colombia=South America/North America, Ecuador=South America, Morocco=Africa, Algeria=Africa
Ghana=Africa, Nigeria=Africa, Uganda=Africa, Tanzania=Africa, Bolivia=South America
""",
    "language": """
France=French, Germany=German, Italy=Italian, Spain=Spanish, Portugal=Portuguese, Japan=Japanese
China=Chinese, Egypt=Arabic, Greece=Greek, Russia=Russian, Norway=Norwegian, Sweden=Swedish
Denmark=Danish, Poland=Polish, Austria=German, Hungary=Hungarian, Cuba=Spanish, Peru=Spanish
Chile=Spanish, Thailand=Thai, Turkey=Turkish, Argentina=Spanish, Brazil=Portuguese
Australia=English, Mexico=Spanish, Romania=Romanian, Vietnam=Vietnamese, Bulgaria=Bulgarian
""",
    "opposite": """
hot=cold, big=small/thin/narrow, fast=slow, happy=sad, up=down/low/bottom/below, early=late, wet=dry
full=empty, old=young/modern, hard=soft, strong=weak, rich=poor, thick=thin/narrow, loud=quiet
clean=dirty, day=night, left=right, love=hate, win=lose, buy=sell, push=pull, heavy=light
high=low/down/bottom/below, deep=shallow, wide=narrow/thin, smooth=rough, sharp=blunt, sweet=sour
brave=cowardly/weak, front=back/end, top=bottom/low/down/below, inside=outside, above=below/down/low
always=never, first=last/end, begin=end, near=far, asleep=awake, polite=rude/mean, generous=mean
friend=enemy, success=failure, question=answer, arrive=leave, remember=forget, tight=loose
straight=crooked, cheap=expensive, simple=complicated, war=peace, north=south, east=west
guilty=innocent, ancient=modern/young, increase=decrease, accept=refuse, lend=borrow, float=sink
bright=dim, wise=foolish, include=exclude, visible=hidden, male=female, boring=exciting
""",
    "synonym": """
glad=pleased, angry=furious, tired=weary, gift=present, shop=store, ill=sick, speak=talk, shout=yell
rapid=quick, strange=odd/rare, correct=right, mistake=error, choose=pick, clever=smart, rock=stone
street=road, infant=baby, physician=medic, tidy=neat, silent=quiet, enormous=huge, tiny=little
finish=complete, reply=answer, help=aid, jump=leap, wealthy=rich, scared=afraid, damp=moist
difficult=hard, hurry=rush/quick, unusual=rare/odd, purchase=buy, autumn=fall, film=movie, ocean=sea
forest=woods, journey=trip, odour=smell, courageous=bold, begin=start, repair=mend, hat=cap
""",
    "part": """
petal=flower, pedal=bicycle, branch=tree, page=book, sleeve=shirt, hoof=horse/deer/cow, beak=bird, gill=fish
antler=deer, lens=camera/eye, lace=shoe/shirt, finger=hand, toe=foot/elephant/camel/kangaroo/bird, eyelash=eye/horse/deer/cow/camel/elephant/kangaroo, nostril=nose/horse/deer/cow/camel/elephant/kangaroo/bird/fish
cockpit=plane, handlebar=bicycle, yolk=egg, drawer=desk, mattress=bed, tap=sink, windscreen=car/plane/train/ship
rung=ladder, wick=candle, nib=pen, bristle=brush, chapter=book, verse=poem, anchor=ship, carriage=train
tusk=elephant, udder=cow/horse, hump=camel, pouch=kangaroo, stage=theatre/school, classroom=school
operating table=hospital, platform=station, runway=airport, fret=guitar, collar=shirt, knuckle=hand
heel=foot/shoe, twig=tree, feather=bird, altar=church, hour hand=clock, screen=television/car/plane
""",
    "use": """
hammer=drive in nails, saw=cut wood/chop down a tree, scissors=cut paper, oven=bake bread/warm a room, kettle=boil water
fridge=keep food cold, umbrella=stay dry in rain, pen=write a letter, broom=sweep the floor
needle=sew on a button, ruler=measure a line, clock=tell the time, thermometer=measure a fever
telescope=look at stars/watch birds, microscope=see tiny cells, spade=dig a hole/move soil, rake=gather leaves
axe=chop down a tree/cut wood, ladder=reach a roof, key=unlock a door, towel=dry your hands
comb=tidy your hair, toothbrush=clean your teeth, soap=wash your hands, camera=take photographs
telephone=call a friend, lamp=light a room, pillow=rest your head, bucket=carry water
whisk=beat eggs, grater=shred cheese, ladle=serve soup, corkscrew=open wine, rolling pin=flatten dough
sieve=sift flour, knife=slice bread/cut paper/cut wood, spoon=stir tea/beat eggs/serve soup
mirror=see your face, calculator=add numbers, heater=warm a room, tent=camp outdoors/stay dry in rain
lawnmower=cut grass, paintbrush=paint a wall, compass=find north, parachute=fall safely
helmet=protect your head, stapler=join papers, eraser=remove pencil marks, wheelbarrow=move soil
fishing rod=catch fish, screwdriver=turn screws, spanner=tighten bolts, suitcase=pack for a trip
dictionary=look up words, stamp=post a letter, binoculars=watch birds/look at stars
""",
    "property": """
ice=cold>hot, fire=hot>cold, pillow=soft>hard, stone=hard>soft, feather=light>heavy, anvil=heavy>light
razor=sharp>blunt, ball=round>square, sugar=sweet>sour, lemon=sour>sweet, honey=sweet>sour
vinegar=sour>sweet, the sun=bright>dark, cave=dark>bright, snail=slow>fast, cheetah=fast>slow
thunder=loud>quiet, whisper=quiet>loud, giant=tall>short, desert=dry>wet, puddle=shallow>deep
skyscraper=tall>short, rocket=fast>slow, tortoise=slow>fast, steel=hard>soft, cotton=soft>hard
diamond=hard>soft, butter=soft>hard, lorry=heavy>light, balloon=light>heavy, snow=cold>hot
steam=hot>cold, lava=hot>cold, freezer=cold>hot, oven=hot>cold, palace=large>small, ant=small>large
whale=large>small, pea=small>large, needle=sharp>blunt, motorway=wide>narrow, alley=narrow>wide
drum=loud>quiet, library=quiet>loud, mud=wet>dry, millionaire=rich>poor, beggar=poor>rich
grandmother=old>young, baby=young>old, silk=smooth>rough, sandpaper=rough>smooth, coin=round>square
""",
    "sound": """
dog=barks/growls/howls, cat=meows/hisses, cow=moos, duck=quacks, sheep=bleats, horse=neighs, pig=grunts
lion=roars/growls, wolf=howls/growls/barks, snake=hisses, frog=croaks, bee=buzzes, owl=hoots
mouse=squeaks, hen=clucks, donkey=brays, crow=caws, turkey=gobbles, pigeon=coos, elephant=trumpets
tiger=roars/growls, bear=growls/roars/grunts, goat=bleats, mosquito=buzzes, sparrow=chirps, goose=honks/hisses
""",
    "baby": """
dog=puppy, cat=kitten, cow=calf, sheep=lamb, horse=foal, pig=piglet, duck=duckling, hen=chick
goose=gosling/chick, swan=cygnet/chick, goat=kid, lion=cub, bear=cub, deer=fawn/calf, frog=tadpole, kangaroo=joey
elephant=calf, whale=calf, tiger=cub, wolf=cub/puppy, owl=owlet/chick, butterfly=caterpillar
eagle=eaglet/chick, fox=cub/kitten, moth=caterpillar, dolphin=calf, spider=spiderling
""",
    "home": """
bee=hive/nest, spider=web, dog=kennel, sparrow=nest, rabbit=burrow, bear=den/cave, horse=stable/barn
lion=den, fox=den/burrow, pig=sty/barn, hen=coop/nest/barn, goldfish=tank, king=palace/castle, monk=monastery
ant=anthill/nest, soldier=barracks/tent, prisoner=prison, camper=tent, wasp=nest/hive, eagle=nest
mole=burrow, beaver=lodge/den, nun=convent/monastery, snail=shell, wolf=den/cave
""",
    "colour": """
banana=yellow, grass=green, snow=white, coal=black, strawberry=red, carrot=orange, the sky=blue/grey/black
lemon=yellow, blood=red, milk=white, chocolate=brown/white/black, tomato=red, cucumber=green, flamingo=pink, crow=black
polar bear=white, emerald=green, ruby=red, sapphire=blue, pea=green, lettuce=green, spinach=green
pumpkin=orange, aubergine=purple, swan=white/black, salt=white, elephant=grey, sunflower=yellow
fire engine=red, lime=green, raspberry=red/pink, ladybird=red/black, flour=white, raven=black, amethyst=purple
canary=yellow, egg yolk=yellow/orange, soot=black/grey, dandelion=yellow, broccoli=green, ash=grey/white/black
""",
    "made": """
tyre=rubber, window=glass/wood, book=paper/wood, coin=metal/iron, candle=wax, brick=clay, bread=flour/barley/milk
cheese=milk, wine=grapes, butter=milk, omelette=eggs/milk, ketchup=tomatoes, chocolate=cocoa/milk
yoghurt=milk, cider=apples, saddle=leather, horseshoe=iron/metal, igloo=snow, pencil=wood, popcorn=maize
eraser=rubber, nail=iron/metal, envelope=paper/wood, newspaper=paper/wood, plank=wood, snowman=snow, pasta=flour/eggs
toast=bread/flour, beer=barley, tofu=soya beans, lemonade=lemons, scarf=wool, jumper=wool, log=wood
mirror=glass/metal, raisins=grapes, belt=leather, chips=potatoes
""",
    "cover": """
cat=fur, robin=feathers, salmon=scales, fox=fur, eagle=feathers, trout=scales, bear=fur, owl=feathers
snake=scales, rabbit=fur, swan=feathers, lizard=scales, squirrel=fur, parrot=feathers, carp=scales
otter=fur, penguin=feathers, herring=scales, sheep=wool/fur, ostrich=feathers, snail=shell, crab=shell
tortoise=shell/scales, hedgehog=spines/fur, tiger=fur, crow=feathers, cobra=scales
""",
    "legs": """
spider=eight, ant=six, dog=four, robin=two, snake=none, horse=four, crab=ten, bee=six, hen=two, salmon=none
beetle=six, scorpion=eight, whale=none, cow=four, ostrich=two, worm=none, fly=six, cat=four, shark=none
owl=two, wasp=six, camel=four, eel=none, moth=six, penguin=two, lizard=four, lobster=ten, tripod=three
""",
    "workplace": """
teacher=school, nurse=hospital/school, farmer=farm, pilot=aeroplane, chef=kitchen/restaurant/hotel, judge=court
actor=theatre, sailor=ship, librarian=library/school, miner=mine, baker=bakery, waiter=restaurant/hotel
priest=church, scientist=laboratory/museum/space station, lifeguard=swimming pool, mechanic=garage, banker=bank
astronaut=space station, clown=circus/theatre, zookeeper=zoo, surgeon=hospital, curator=museum
receptionist=hotel/hospital/school, pharmacist=pharmacy/hospital, lumberjack=forest, shepherd=field/farm
bricklayer=building site, dentist=dental surgery/hospital, secretary=office/school/hospital, barber=barber shop
""",
    "task": """
baker=bakes bread, plumber=mends pipes, dentist=cares for teeth, tailor=makes clothes, butcher=sells meat
carpenter=works with wood, firefighter=puts out fires, postman=delivers letters, teacher=gives lessons
pilot=flies planes, barber=cuts hair, author=writes books, painter=paints pictures, farmer=grows crops
architect=designs buildings, journalist=reports news, optician=tests eyes, florist=sells flowers
vet=treats animals, singer=sings songs, detective=solves crimes, mechanic=repairs cars
composer=writes music, jockey=rides horses, lawyer=gives legal advice, chef=cooks meals
librarian=lends books, cobbler=repairs shoes, miner=digs coal, referee=controls matches
interpreter=translates speech, gardener=tends plants/grows crops, electrician=fixes wiring
conductor=leads an orchestra, banker=looks after money, waiter=serves food
""",
    "female": """
king=queen, prince=princess, uncle=aunt, bull=cow, father=mother, son=daughter, brother=sister
husband=wife, actor=actress, nephew=niece, waiter=waitress, grandfather=grandmother, boy=girl
ram=ewe, stallion=mare, duke=duchess, wizard=witch, monk=nun, host=hostess, lion=lioness
groom=bride, landlord=landlady, hero=heroine, emperor=empress, tiger=tigress, policeman=policewoman
""",
    "plural": """
mouse=mice, child=children, foot=feet, tooth=teeth, goose=geese, man=men, woman=women, knife=knives
leaf=leaves, wolf=wolves, baby=babies, city=cities, ox=oxen, shelf=shelves, wife=wives
half=halves, loaf=loaves, lady=ladies, story=stories, calf=calves, life=lives, fly=flies
cherry=cherries, country=countries, family=families, thief=thieves
""",
    "past": """
go=went, take=took, make=made, see=saw, eat=ate, come=came, give=gave, find=found, think=thought
buy=bought, bring=brought, teach=taught, catch=caught, fly=flew, grow=grew, know=knew, throw=threw
write=wrote, drive=drove, ride=rode, sing=sang, swim=swam, run=ran, begin=began, drink=drank
keep=kept, sleep=slept, feel=felt, leave=left, break=broke, speak=spoke, steal=stole, fall=fell
""",
}

# From small to large; what stands a line lower is clearly larger than all that stands above it.
SIZES = """
ant, grain of rice, flea, pea, ladybird, bead, grain of sand, mosquito, pinhead
mouse, egg, lemon, spoon, apple, wallet, strawberry, robin, pear, teacup
cat, hen, kettle, rabbit, laptop, pumpkin, goose, bucket, pillow, watermelon
sheep, bicycle, armchair, desk, wolf, wheelbarrow, bathtub, goat, wardrobe, deer
elephant, bus, lorry, hippopotamus, fire engine, tractor, caravan, giraffe, tank, rhinoceros
castle, cathedral, stadium, skyscraper, airport, palace, cruise ship, hospital, shopping centre
mountain, ocean, moon, desert, planet, country, continent, sea, galaxy
"""

SEQUENCES = {
    "{}": (
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "January February March April May June July August September October November December",
    ),
    "the letter {}": ("A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",),
    "the word {}": (
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen twenty",
    ),
    "{} place": ("first second third fourth fifth sixth seventh eighth ninth tenth",),
}

# Subjects that take no article in the tables whose subjects otherwise take one.
PLAIN = """
scissors soap binoculars ice fire sugar honey vinegar thunder steel cotton butter snow steam
lava mud silk sandpaper grass coal blood milk chocolate spinach salt flour soot broccoli ash
bread cheese wine ketchup yoghurt cider popcorn pasta toast beer tofu lemonade raisins chips
lettuce
"""
# Words that take "a" before a vowel.
SAID_WITH_A = frozenset({"euro"})
