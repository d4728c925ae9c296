"""The wordings of the questions of `nlu`: `train / … | validation / … | test / …`.

`{s}` is the subject with its article, `{w}` without; `{v}` is the value and `{av}` the value with
its article. In `choice` the value is to be chosen, in `reverse` the subject, and in `boolean` the
question says a value that is right or wrong.
"""

WORDINGS = {
    (
        "category",
        "choice",
    ): "What is {s}? / Which group does {s} belong to? / What kind of thing is {s}? / What would you call {s}? / {w} is an example of what? / In which list would you find {w}? | How would you classify {s}? / What sort of thing is {s}? | Under which heading does {w} fall? / What does the word {w} name? / Where would you sort {w}?",
    (
        "category",
        "reverse",
    ): "Which of these is {av}? / Which one is {av}? / Which word names {av}? / Find {av}. / Which is an example of {av}? | Pick out {av}. / Which item counts as {av}? | Only one of these is {av}: which? / Which entry is {av}? / Spot {av} in this list.",
    (
        "category",
        "boolean",
    ): "is {s} {av} / is {s} a kind of {v} / can you call {s} {av} / does {s} count as {av} / would you say {s} is {av} | is {w} an example of {av} / is it right to call {s} {av} | does {w} belong in a list for the word {v} / would a dictionary call {s} {av} / should {w} be sorted under {v}",
    (
        "odd",
        "choice",
    ): "Which one is the odd one out? / Which does not belong with the others? / Which is different from the rest? / Which word does not fit? | Which one should be left out? | Three go together: which is the stranger? / Which of these is not like the others?",
    (
        "all",
        "boolean",
    ): "are these the same kind of thing: {v} / do {v} all belong together / are {v} in one group | would {v} share one label | do these form one family: {v} / could one word cover {v}",
    (
        "capital",
        "choice",
    ): "What is the capital of {s}? / Which city is the capital of {s}? / The capital of {s} is called what? | Name the capital of {s}. | Which city is the seat of government of {s}? / {s} has which capital city?",
    (
        "capital",
        "reverse",
    ): "{v} is the capital of which country? / Which country has {v} as its capital? / Whose capital is {v}? | Of which land is {v} the capital? | For which country is {v} the capital city? / Which nation is governed from {v}?",
    (
        "capital",
        "boolean",
    ): "is {v} the capital of {s} / is the capital of {s} called {v} / does {s} have {v} as its capital | is {v} the capital city of {s} | would you find the government of {s} in {v} / has {s} chosen {v} for its capital",
    (
        "continent",
        "choice",
    ): "On which continent is {s}? / Which continent is {s} part of? / Where in the world is {s}? | {s} lies on which continent? | To which continent does {s} belong? / Which continent would you visit to see {s}?",
    (
        "continent",
        "reverse",
    ): "Which country is in {v}? / Which of these lies in {v}? / Find the country in {v}. | Which country belongs to {v}? | A trip to {v} could take you where? / Which of these is on the map of {v}?",
    (
        "continent",
        "boolean",
    ): "is {s} in {v} / is {s} part of {v} / does {s} lie in {v} | does {s} belong to {v} | would you go to {v} to see {s} / is {s} on a map of {v}",
    (
        "language",
        "choice",
    ): "What is the main language of {s}? / Which language do people speak in {s}? / What do most people speak in {s}? | Which language is used in {s}? | Children in {s} grow up speaking what? / Which language would you learn for {s}?",
    (
        "language",
        "boolean",
    ): "is {v} the main language of {s} / do most people in {s} speak {v} / is {v} what people speak in {s} | is {v} the usual language in {s} | would you learn {v} before moving to {s} / are the newspapers of {s} mostly in {v}",
    (
        "opposite",
        "choice",
    ): "What is the opposite of {w}? / Which word is the opposite of {w}? / Which word means the reverse of {w}? | The opposite of {w} is what? | Which word is least like {w}? / If it is not {w} but the contrary, it is what?",
    (
        "opposite",
        "boolean",
    ): "is {v} the opposite of {w} / are {w} and {v} opposites / does {v} mean the reverse of {w} | is the opposite of {w} the word {v} | do {w} and {v} mean contrary things / is {v} the contrary of {w}",
    (
        "synonym",
        "choice",
    ): "Which word means the same as {w}? / What is another word for {w}? / Which word is closest in meaning to {w}? | What could you say instead of {w}? | Which word could replace {w}? / {w} means nearly the same as what?",
    (
        "synonym",
        "boolean",
    ): "does {w} mean the same as {v} / is {v} another word for {w} / do {w} and {v} mean nearly the same | can you say {v} instead of {w} | could {v} replace {w} in a sentence / are {w} and {v} alike in meaning",
    (
        "part",
        "choice",
    ): "{s} is part of what? / What has {s}? / Where would you find {s}? | {s} belongs to what? | On or in which of these is {s}? / Which of these comes with {s}?",
    (
        "part",
        "reverse",
    ): "Which of these is part of {av}? / What does {av} have? / Which one belongs to {av}? | Which is found on or in {av}? | Take {av} apart: what do you get? / {av} comes with which of these?",
    (
        "part",
        "boolean",
    ): "is {s} part of {av} / does {av} have {s} / does {s} belong to {av} | would you find {s} on or in {av} | does {av} come with {s} / if you draw {av}, might you draw {s}",
    (
        "use",
        "choice",
    ): "What is {s} for? / What do you do with {s}? / {s} is used to do what? | What does {s} help you to do? | Why would you own {s}? / With {s} in your hand you can do what?",
    (
        "use",
        "reverse",
    ): "What do you use to {v}? / Which thing helps you to {v}? / To {v} you need what? | With what would you {v}? | You want to {v}: what do you take? / Which of these is made to {v}?",
    (
        "use",
        "boolean",
    ): "do you use {s} to {v} / is {s} used to {v} / is {s} made to {v} | does {s} help you to {v} | would you buy {s} to {v} / to {v}, should you take {s}",
    (
        "property",
        "choice",
    ): "How is {s}? / Which word describes {s}? / {s} is usually what? | What is {s} like? | Which word suits {s} better? / How would you describe {s}?",
    (
        "property",
        "boolean",
    ): "is {s} {v} / is {s} usually {v} / would you describe {s} as {v} | is {v} a good word for {s} | do people think of {s} as {v} / does the word {v} suit {s}",
    (
        "bigger",
        "choice",
    ): "Which is the biggest? / Which of these is the largest? / What is biggest in size? | Which one is larger than the rest? | Which takes up the most space? / Which would need the most room?",
    (
        "bigger",
        "boolean",
    ): "is {s} bigger than {v} / is {s} larger than {v} | does {s} have a greater size than {v} | does {s} take up more space than {v} / beside {s}, does {v} look small",
    (
        "smaller",
        "choice",
    ): "Which is the smallest? / Which of these is the tiniest? / What is smallest in size? | Which one is smaller than the rest? | Which takes up the least space? / Which would need the least room?",
    (
        "smaller",
        "boolean",
    ): "is {s} smaller than {v} / is {s} tinier than {v} | does {s} have a lesser size than {v} | does {s} take up less space than {v} / beside {s}, does {v} look huge",
    (
        "after",
        "choice",
    ): "What comes right after {s}? / What follows {s}? / Which is next after {s}? | What is the next one after {s}? | Go one step on from {s}: what is it? / {s} is followed by what?",
    (
        "after",
        "boolean",
    ): "does {v} come right after {s} / does {v} follow {s} directly / is {v} next after {s} | is {s} followed at once by {v} | is {v} one step on from {s} / do you say {v} just after {s}",
    (
        "before",
        "choice",
    ): "What comes right before {s}? / What is just before {s}? / Which is directly before {s}? | What is the one before {s}? | Go one step back from {s}: what is it? / What leads up to {s}?",
    (
        "before",
        "boolean",
    ): "does {v} come right before {s} / is {v} just before {s} / is {v} directly before {s} | does {v} stand just in front of {s} | is {v} one step back from {s} / do you say {v} just before {s}",
    (
        "greater",
        "choice",
    ): "Which number is the largest? / Which number is the greatest? / Which is the highest number? | Which number is more than the others? | Which price would be the dearest? / Which score beats the others?",
    (
        "greater",
        "boolean",
    ): "is {s} greater than {v} / is {s} more than {v} / is {s} a larger number than {v} | is {s} higher than {v} | does a score of {s} beat {v} / does {s} come after {v} when you count",
    (
        "less",
        "choice",
    ): "Which number is the smallest? / Which number is the least? / Which is the lowest number? | Which number is less than the others? | Which price would be the cheapest? / Which score is the worst?",
    (
        "less",
        "boolean",
    ): "is {s} less than {v} / is {s} below {v} / is {s} a smaller number than {v} | is {s} lower than {v} | does a score of {s} lose to {v} / does {s} come before {v} when you count",
    (
        "plus",
        "choice",
    ): "What is {s}? / How much is {s}? / {s} makes what? | Work out {s}. | What do you get for {s}? / Add up {s}: what is it?",
    (
        "plus",
        "boolean",
    ): "is {s} equal to {v} / does {s} make {v} / is {s} the same as {v} | is {v} what {s} makes | do you get {v} for {s} / does adding up {s} give {v}",
    (
        "sound",
        "choice",
    ): "What does {s} do? / What sound does {s} make? It … / How do you hear {s}? It … | When {s} makes a noise, it … | Outside you hear {s}. It … / At the farm or zoo {s} …",
    (
        "sound",
        "reverse",
    ): "Which animal {v}? / Which of these {v}? / What animal {v}? | Name the animal that {v}. | Listen: it {v}. What is it? / Something {v} in the dark: what is it?",
    (
        "sound",
        "boolean",
    ): "is it true that {s} {v} / is it right that {s} {v} / do we say that {s} {v} | is it correct to say that {s} {v} | would a child say that {s} {v} / in a story, is it likely that {s} {v}",
    (
        "baby",
        "choice",
    ): "What is a young {w} called? / What do you call a baby {w}? / A baby {w} is what? | What is the young of {s} called? | Which word names the little one of {s}? / {s} was once what?",
    (
        "baby",
        "reverse",
    ): "Which animal has a young called {av}? / {av} grows up to be what? / {av} is the baby of which animal? | {av} is a young what? | What will {av} be one day? / Who is the parent of {av}?",
    (
        "baby",
        "boolean",
    ): "is a young {w} called {av} / is {av} a baby {w} / is a baby {w} known as {av} | is {av} the young of {s} | does {av} grow up to be {s} / was {s} once {av}",
    (
        "home",
        "choice",
    ): "Where does {s} live? / What is the home of {s}? / {s} lives in what? | In what does {s} make its home? | Where would you look for {s}? / Which place houses {s}?",
    (
        "home",
        "boolean",
    ): "does {s} live in {av} / is {av} the home of {s} / is {av} where {s} lives | does {s} make its home in {av} | would you look for {s} in {av} / is {av} the right house for {s}",
    (
        "colour",
        "choice",
    ): "What colour is {s}? / Which colour does {s} have? / {s} is usually which colour? | What is the usual colour of {s}? | Which paint do you need for {s}? / With which crayon would you draw {s}?",
    (
        "colour",
        "reverse",
    ): "Which of these is {v}? / Which one is usually {v}? / Which thing has the colour {v}? | Find the thing that is {v}. | For which picture do you need {v} paint? / What would you draw with {av} crayon?",
    (
        "colour",
        "boolean",
    ): "is {s} {v} / is the colour of {s} {v} / is {s} usually {v} in colour | is {v} the usual colour of {s} | would you paint {s} {v} / do you need {av} crayon to draw {s}",
    (
        "made",
        "choice",
    ): "What is {s} made from? / What do you need to make {s}? / From what is {s} made? | Which material goes into {s}? | To produce {s}, one starts with what? / Someone who makes {s} buys what?",
    (
        "made",
        "boolean",
    ): "is {s} made from {v} / do you need {v} to make {s} / do people make {s} from {v} | does {v} go into {s} | to produce {s}, does one start with {v} / would a maker of {s} buy {v}",
    (
        "cover",
        "choice",
    ): "What covers the body of {s}? / What is on the skin of {s}? / The body of {s} has what? | What does {s} wear on its body? | Touch {s}: what do you feel? / {s} is dressed by nature in what?",
    (
        "cover",
        "boolean",
    ): "does {s} have {v} / is {s} covered by {v} / does the body of {s} have {v} | does {s} wear {v} on its body | if you touch {s}, do you feel {v} / did nature give {s} {v}",
    (
        "legs",
        "choice",
    ): "How many legs does {s} have? / The number of legs of {s} is what? / Count the legs of {s}. | On how many legs does {s} walk? | To draw {s}, how many legs do you draw? / How many feet has {s}?",
    (
        "legs",
        "boolean",
    ): "is the number of legs of {s} {v} / for {s}, is the count of legs {v} | is {v} the leg count of {s} | to draw {s}, is the number of legs {v} / is {v} the answer if you count the legs of {s}",
    (
        "workplace",
        "choice",
    ): "Where does {s} work? / What is the workplace of {s}? / In which place does {s} work? | Where would you meet {s} at work? | Where does {s} go each morning? / Which place cannot do without {s}?",
    (
        "workplace",
        "reverse",
    ): "Who works in {av}? / Which person works in {av}? / Whose workplace is {av}? | Whom would you meet at work in {av}? | Who goes to {av} each morning? / Which worker does {av} need?",
    (
        "workplace",
        "boolean",
    ): "does {s} work in {av} / is {av} the workplace of {s} / is {av} where {s} works | would you meet {s} at work in {av} | does {s} go to {av} each morning for the job / does {av} need {s}",
    (
        "task",
        "choice",
    ): "What does {s} do? / What is the job of {s}? / Each day {s} does what? | What is {s} paid for? | {s} is a person who does what? / You call {s}, a person who …",
    (
        "task",
        "reverse",
    ): "Who {v}? / Which worker {v}? / Which person {v}? | The one who {v} is called what? | I want the person who {v}: who is it? / Who is paid because he or she {v}?",
    (
        "task",
        "boolean",
    ): "is {s} someone who {v} / is {s} a person who {v} / do we call {s} one who {v} | is it the job of {s}: one who {v} | do you pay {s} as someone who {v} / would you hire {s} as one who {v}",
    (
        "female",
        "choice",
    ): "What is the female form of {w}? / A female {w} is called what? / Which word is the female of {w}? | What is the woman's word for {w}? | {w} is to man as what is to woman? / Which word pairs with {w} as the female?",
    (
        "female",
        "boolean",
    ): "is {v} the female form of {w} / is a female {w} called {av} / is {v} the female of {w} | is {av} the female of {s} | does {v} pair with {w} as the female / do {w} and {v} go together as male and female",
    (
        "plural",
        "choice",
    ): "What is the plural of {w}? / How do you write more than one {w}? / One {w}, two what? | Which is the plural form of {w}? | I have one {w}, you have many what? / Several of the word {w} are what?",
    (
        "plural",
        "boolean",
    ): "is {v} the plural of {w} / do we say one {w}, two {v} / is the plural of {w} written {v} | is {v} the plural form of {w} | do you write many {v} for more than one {w} / does one {w} become several {v}",
    (
        "past",
        "choice",
    ): "What is the past tense of {w}? / Today I {w}, yesterday I what? / Which is the past form of {w}? | How do you say {w} for last week? | Now we {w}, long ago we what? / They {w} today; before, they what?",
    (
        "past",
        "boolean",
    ): "is {v} the past tense of {w} / do we say today I {w}, yesterday I {v} / is the past form of {w} written {v} | is {v} how you say {w} for last week | now we {w}, but long ago, was it we {v} / does {w} turn into {v} for yesterday",
    (
        "letter",
        "choice",
    ): "Which letter does {w} begin with? / What is the first letter of {w}? / With which letter does {w} start? | Which letter opens the word {w}? | To write {w}, which letter comes first? / The word {w} starts how?",
    (
        "letter",
        "boolean",
    ): "does {w} begin with {v} / is {v} the first letter of {w} / does the word {w} start with {v} | does {v} open the word {w} | to write {w}, do you start at {v} / is {w} listed under {v} in a dictionary",
}
