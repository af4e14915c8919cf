"""Words from which names, comments and strings are made."""

from __future__ import annotations

import keyword


def _words(listed: str) -> tuple[str, ...]:
    """The different words of `listed` in order, without Python keywords."""
    return tuple(w for w in dict.fromkeys(listed.split()) if not keyword.iskeyword(w))


NOUNS: tuple[str, ...] = _words("""
account action actor address age agent album alert amount angle animal answer apple area array article
artist asset author axis badge balance ball band bank base basket batch beam bed bike bill bird block board
boat body book border bottle bound box branch bridge bucket budget buffer bug bus button buyer byte cache
camera card cargo cart case cat cell chain chair channel chapter char chart child choice chunk circle city
claim client clock cloud cluster coach code coin color column comment company contact cookie copy corner
cost count country coupon course cover crop cup curve customer cycle date day deck degree depth design desk
detail device digit disk distance doc dog dollar domain door dose draft driver edge email employee energy
engine entry error event exam factor farm fee field figure file film filter flag flight floor flower folder
food force forest form frame friend fruit game gap garden gate genre gift goal grade gradient grain graph
grid group guest guide half handler head header height hero hint history hole holiday home horse host hotel
hour house icon image index ingredient invoice island item job journal judge key kind king kitchen label
lake lamp language layer leaf league lesson letter level limit line link list loan location log loop loss
machine mail map margin mark market mask mass match matrix meal member menu message metric mile minute mode
model module molecule moment money month motor mountain mouse movie name network node note novel number
object ocean offer office option order origin owner pack packet page paint pair panel paper param parent
part party patient pattern payment peak pencil person phone phrase picture piece pixel place planet plant
player plot point policy poll pool port position post power pressure price prize process product profile
profit project protein purchase query question queue race radius rain rank rate ratio reader reading receipt
recipe record region report request reservation response reward river road robot role room root rotation
round route row rule salary sale sample scale scene schedule school score screen season seat second section
seed segment sensor sentence series server session setting shape ship shop shot signal singer size skill
slice slide slot snake soil song source speed spell sport square stack staff stage star state station step
stock stone store storm story stream street string student study subject sum supplier symbol system table
tag target task taste tax teacher team temperature term test text theme thread ticket tile time title token
tool topic total tower town track trade train trait trial trip truck tune turn type unit update upload url
user value vector vehicle velocity vendor version video view visit visitor voice volume vote voter wall
warning watch water wave weapon weather week weight wheel width window winner wire word worker world writer
year zone
""")
ADJECTIVES: tuple[str, ...] = _words("""
active all available average bad best big blue bottom cached central clean closed cold common complete
correct daily default deep direct done double dry dynamic early empty error even expected extra failed fast
final first flat free fresh front full general global good green half heavy hidden high hot initial inner
invalid large last late left light local long lost low main major manual max mean median min minor missing
mixed monthly national new next nice noisy normal odd old open other outer own parsed past pending plain
previous primary private public quick random raw ready real recent red remote right rough safe saved second
secret selected shared sharp short simple single slow small smooth sorted special square start static strong
sub temp tiny top total unique unknown upper used user valid visible warm weak weekly white whole wide wrong
yearly young
""")
VERBS: tuple[str, ...] = _words("""
add apply ask assign attach block build buy calculate call cancel change check choose clean clear close
collect combine compare compute connect convert copy count create cut decode define delete describe detect
download draw drop encode estimate evaluate expand export extract fetch fill filter find fit fix flatten
format gather generate get group guess handle hide import init insert inspect join learn limit list load
lock log make map mark match measure merge mix move normalize notify open order pack paint parse pay pick
place play plot predict prepare print process pull push rank read receive record reduce refresh register
release reload remove rename render repair repeat replace report request reset resize resolve restore
reverse rotate run sample save scale scan score search select sell send set shift show shuffle skip solve
sort split start stop store submit sum swap sync test track train transform trim update upload validate
verify visit wait walk warn watch wrap write
""")
ATTRS: tuple[str, ...] = _words("""
name size id value data count status title length price score owner parent children state color weight
height width level kind label email age x y key text path date total rate items index config tags rank
position address
""")
METHODS: tuple[str, ...] = _words("""
update send save load run start stop close reset show get find add remove apply fit predict render process
check notify draw move connect write put push log set_name set_title set_text is_valid insert register
select search
""")
LETTERS: tuple[str, ...] = _words("a b c d e f g h i j k m n p q r s t u v w x y z")
CLASS_ENDS: tuple[str, ...] = _words("""
Manager Handler Model Node View Error Parser Builder Service Client Factory Config Item Controller Loader
Writer Reader Player Store Queue Tree Worker Base Form Test Report Event Task Group
""")
TITLES: tuple[str, ...] = _words("""
Hello Welcome Done Error Warning Total Name Please Enter Starting Finished Loading Saving Result Invalid
Found Missing Processing User Score Goodbye Failed Success Unknown Ready Current New Sorry Waiting Connected
Game The
""")
FILLERS: tuple[str, ...] = _words("""
the a to of in is not for and your with was at from on by this are has no be more than could too many
already
""")
PEOPLE: tuple[str, ...] = _words("""
Alice Bob Carol David Emma Frank Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paul Rosa Sam Tina Victor
London Paris Berlin Tokyo Madrid Rome Boston Chicago Monday Tuesday Friday January March June October Red
Blue
""")
EXTENSIONS: tuple[str, ...] = ("txt", "csv", "json", "log", "md", "xml", "html", "dat", "yaml", "tsv")
WRITE_STEMS: tuple[str, ...] = (
    "out",
    "output",
    "result",
    "results",
    "log",
    "report",
    "summary",
    "save",
    "export",
    "dump",
    "generated",
    "backup",
    "dest",
    "target",
)
READ_STEMS: tuple[str, ...] = (
    "in",
    "input",
    "source",
    "config",
    "data",
    "settings",
    "words",
    "names",
    "train",
    "dataset",
    "template",
    "corpus",
    "original",
    "existing",
)
MODULES: tuple[str, ...] = _words("""
os sys re json math time random logging collections itertools functools datetime threading csv copy string
numpy pandas requests argparse pathlib typing subprocess
""")
FROM_IMPORTS: tuple[str, ...] = (
    "from collections import defaultdict",
    "from collections import Counter",
    "from pathlib import Path",
    "from typing import List, Optional",
    "from datetime import datetime, timedelta",
    "import numpy as np",
    "from functools import wraps",
    "from dataclasses import dataclass",
    "import pandas as pd",
    "from flask import Flask, request",
    "from contextlib import suppress",
    "from threading import Lock",
    "from itertools import chain",
    "from math import sqrt, pi",
    "import matplotlib.pyplot as plt",
)
