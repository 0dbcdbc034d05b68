"""English words that the tokenizer covers: everyday nouns and verbs, written for this file.

They are read letter by letter to find word pieces; no sentence of the pre-training uses them as an answer.
"""

NOUNS = """
airplane alarm alligator alley ambulance ant antelope anvil apartment apple arena axe baby badger bag
bagpipe ball ballroom bamboo band banjo bank bar barn baseball basement basin basket basketball bass bassoon
bat bathroom beach bear beaver bed bedroom bee beetle bell bench bicycle bird bison blackbird blender boar
board boat body bongo book bottle bowl box boy branch brass bridge broom brush bubble bucket buffalo
building bull bus bush butterfly button cabin cable cafe cage calf camel camera camp canal candle cannon
canyon cap car carpet cart castle cat cave ceiling cello chain chainsaw chair chalk cheetah chicken child
chime chimes chimpanzee chipmunk church cicada circus city clap clarinet classroom cliff clock cloud coast
cock coin concert coral corn corridor cottage court cow crab crane crane crow crowd cuckoo cup curtain
cymbal dance deck deer desert desk dinosaur dish dock dog dolphin donkey door downtown dragon dress drill
drum duck dune dunes eagle ear earth elephant elk engine erhu face factory falcon family fan farm faucet
feather fence ferret ferry fiddle field finger fire firetruck firework fireworks fish flag flame floor
flower flute fly foot football forest fork fountain fox frog frying garage garden gate gibbon giraffe girl
glacier glass glockenspiel glove goat gong goose gorilla grass grasshopper ground guinea guitar gull gun
guzheng gym hair hall hallway hammer hamster hand harbor harmonica harp hat hawk head hedge hedgehog
helicopter hen heron hill hippopotamus hole horn hornet horse hospital hotel hound house human hyena ice
iguana insect instrument island jackal jacket jaguar jar jellyfish jungle kangaroo kettle key keyboard
kitchen kitten knife koala ladder lake lamb lamp lark lawn leaf leopard library light lightning lion lizard
llama lobby loft lynx machine magpie mall man market meadow metal microphone mill mirror monkey moose
mosquito motor motorboat motorcycle mountain mouse mouth mule museum music night nose ocean octopus office
orca orchestra organ ostrich otter oven owl ox paddle palace panda paper parade park parrot path peacock pen
penguin people person phone photo piano pig pigeon pipe plane plant plate playground pond pony pool porch
port printer puppy quail quetzal rabbit raccoon race radio rail railway rain ram rat raven reef reindeer
restaurant rhea rhino rice river road robin rock roof rooftop room rooster rope rose rug rubber saddle sail
sand saw savanna saxophone school scissors scooter screen sea seagull seal seashore sewing shark sheep shelf
ship shirt shoe shop shopping shore siren sitar skateboard ski sky sloth snail snake snow snowfield sofa
soup sparrow spider spoon square squirrel stable stadium stage stairs station steel stick stone stool store
storm stove stream street string studio subway sun supermarket swallow swan swing switch synthesizer table
tail tambourine tank tap teapot temple tennis tent theater thunder tiger tire toad toilet tool toothbrush
toucan tower town toy tractor train tram tray tree trombone truck trumpet tuba tulip tunnel turkey turtle
typewriter ukulele umbrella underwater vacuum valley van vase vessel viola violin viper volcano vulture
wagon wall walrus warehouse wasp washing water waterfall wave whale wheel whistle wild wind window wing wolf
woman wombat wood woodpecker wool workshop wren xylophone yak yard zebra zither zoo
"""

VERBS = """
baying barking beating beeping bellowing blaring bleating blowing boiling braying breaking bubbling burning
buzzing calling cawing chattering cheering chirping chopping chugging clapping clicking climbing clucking
cooing cracking crackling crashing croaking crowing crying cutting dancing digging dragging drawing drilling
dripping driving drumming eating exploding falling fighting fixing flapping flowing flushing flying frying
gobbling groaning grinding growling grunting hammering hissing hitting honking hooting howling humming
jumping knocking laughing lowing meowing mewing mixing mooing moving mowing neighing oinking opening
ordering painting passing playing plucking pouring practicing purring quacking racing raining ribbiting
revving ringing riding roaring rolling rowing rumbling running rustling sawing scratching screaming
screeching shaking sharpening shooting shouting singing sizzling skating skiing sliding sneezing snoring
speaking splashing squawking squeaking squeezing striking strumming swimming taking talking tapping tearing
ticking thumping trilling trumpeting typing wailing walking warbling washing whinnying whirring whispering
whistling working yelping
"""


def word_list() -> list[str]:
    """Every word once, in order."""
    return list(dict.fromkeys((NOUNS + VERBS).split()))
