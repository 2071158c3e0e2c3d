"""AudioSet's classes as far as the analyzers need them: which contain which, which are speech or music, what a sound does in a clip.

Ontology: Gemmeke et al. 2017, research.google.com/audioset/ontology. Both models list its classes in the order of its tree (YAMNet
521 of them, AST 527), so a class's descendants are a run of names, given here by its first and last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Function = Literal["impact", "transition", "ambience", "reaction"]

# (class, first descendant, last descendant). Crossings of the tree (a police car is a siren too) are rows of their own.
DESCENDANTS = (
    ("Shout", "Bellow", "Children shouting"), ("Laughter", "Baby laughter", "Chuckle, chortle"),
    ("Crying, sobbing", "Baby cry, infant cry", "Wail, moan"), ("Breathing", "Wheeze", "Snort"),
    ("Cough", "Throat clearing", "Throat clearing"), ("Hands", "Finger snapping", "Clapping"),
    ("Animal", "Domestic animals, pets", "Whale vocalization"), ("Domestic animals, pets", "Dog", "Caterwaul"),
    ("Dog", "Bark", "Whimper (dog)"), ("Cat", "Purr", "Caterwaul"),
    ("Livestock, farm animals, working animals", "Horse", "Honk"), ("Horse", "Clip-clop", "Neigh, whinny"),
    ("Cattle, bovinae", "Moo", "Cowbell"), ("Pig", "Oink", "Oink"), ("Goat", "Bleat", "Bleat"),
    ("Fowl", "Chicken, rooster", "Honk"), ("Chicken, rooster", "Cluck", "Crowing, cock-a-doodle-doo"),
    ("Turkey", "Gobble", "Gobble"), ("Duck", "Quack", "Quack"), ("Goose", "Honk", "Honk"),
    ("Wild animals", "Roaring cats (lions, tigers)", "Whale vocalization"),
    ("Bird", "Bird vocalization, bird call, bird song", "Bird flight, flapping wings"),
    ("Bird vocalization, bird call, bird song", "Chirp, tweet", "Squawk"), ("Pigeon, dove", "Coo", "Coo"),
    ("Crow", "Caw", "Caw"), ("Owl", "Hoot", "Hoot"), ("Rodents, rats, mice", "Mouse", "Patter"),
    ("Insect", "Cricket", "Bee, wasp, etc."), ("Frog", "Croak", "Croak"), ("Snake", "Rattle", "Rattle"),
    ("Bell", "Church bell", "Tuning fork"), ("Wind", "Rustling leaves", "Wind noise (microphone)"),
    ("Thunderstorm", "Thunder", "Thunder"), ("Water", "Rain", "Gurgling"), ("Rain", "Raindrop", "Rain on surface"),
    ("Ocean", "Waves, surf", "Waves, surf"), ("Fire", "Crackle", "Crackle"),
    ("Vehicle", "Boat, Water vehicle", "Skateboard"), ("Boat, Water vehicle", "Sailboat, sailing ship", "Ship"),
    ("Motor vehicle (road)", "Car", "Traffic noise, roadway noise"),
    ("Car", "Vehicle horn, car horn, honking", "Race car, auto racing"),
    ("Vehicle horn, car horn, honking", "Toot", "Toot"),
    ("Vehicle horn, car horn, honking", "Air horn, truck horn", "Air horn, truck horn"),
    ("Skidding", "Tire squeal", "Tire squeal"), ("Truck", "Air brake", "Ice cream truck, ice cream van"),
    ("Emergency vehicle", "Police car (siren)", "Fire engine, fire truck (siren)"),
    ("Siren", "Police car (siren)", "Fire engine, fire truck (siren)"),
    ("Rail transport", "Train", "Subway, metro, underground"), ("Train", "Train whistle", "Train wheels squealing"),
    ("Aircraft", "Aircraft engine", "Fixed-wing aircraft, airplane"),
    ("Aircraft engine", "Jet engine", "Propeller, airscrew"),
    ("Engine", "Light engine (high frequency)", "Accelerating, revving, vroom"),
    ("Light engine (high frequency)", "Dental drill, dentist's drill", "Chainsaw"), ("Door", "Doorbell", "Squeak"),
    ("Doorbell", "Ding-dong", "Ding-dong"), ("Typing", "Typewriter", "Computer keyboard"),
    ("Alarm", "Telephone", "Steam whistle"), ("Alarm", "Car alarm", "Car alarm"),
    ("Telephone", "Telephone bell ringing", "Busy signal"), ("Siren", "Civil defense siren", "Civil defense siren"),
    ("Whistle", "Steam whistle", "Steam whistle"), ("Mechanisms", "Ratchet, pawl", "Single-lens reflex camera"),
    ("Clock", "Tick", "Tick-tock"), ("Camera", "Single-lens reflex camera", "Single-lens reflex camera"),
    ("Tools", "Hammer", "Drill"), ("Power tool", "Drill", "Drill"), ("Explosion", "Gunshot, gunfire", "Boom"),
    ("Gunshot, gunfire", "Machine gun", "Cap gun"), ("Fireworks", "Firecracker", "Firecracker"),
    ("Wood", "Chop", "Crack"), ("Glass", "Chink, clink", "Shatter"), ("Liquid", "Splash, splatter", "Stir"),
)  # fmt: skip

Runs = tuple[tuple[str, str], ...]
SPEECH: Runs = (("Speech", "Speech synthesizer"), ("Whispering", "Whispering"))
MUSIC: Runs = (
    ("Singing", "Humming"),
    ("Music", "Harp"),
    ("Harmonica", "Scary music"),
    ("Electronic tuner", "Chorus effect"),
)
# What these name is where and how the sound was recorded, which audio_environment tells, or a sound as such, not an event.
SCENE: Runs = (("Silence", "Chirp tone"), ("Pulse", "Field recording"))
# Struck and whistled notes of the music itself are heard as these, so under music they must be surer than it is.
LIKE_MUSIC: Runs = (
    ("Bell", "Change ringing (campanology)"),
    ("Ping", "Ding"),
    ("Jingle, tinkle", "Jingle, tinkle"),
    ("Whistling", "Whistling"),
    ("Beep, bleep", "Beep, bleep"),
    ("Sound effect", "Sound effect"),
)

# What a sound does in a clip, where its name says so; `sound_events.function_of` tells the rest by its shape.
FUNCTIONS: dict[Function, Runs] = {
    "reaction": (
        ("Shout", "Screaming"), ("Laughter", "Sigh"), ("Groan", "Groan"), ("Gasp", "Gasp"), ("Clapping", "Clapping"),
        ("Cheering", "Applause"),
    ),
    "transition": (("Arrow", "Whoosh, swoosh, swish"), ("Zing", "Boing")),
    "impact": (
        ("Finger snapping", "Finger snapping"), ("Slam", "Tap"), ("Coin (dropping)", "Coin (dropping)"), ("Hammer", "Hammer"),
        ("Explosion", "Gunshot, gunfire"), ("Cap gun", "Cap gun"), ("Burst, pop", "Boom"), ("Chop", "Crack"),
        ("Chink, clink", "Shatter"), ("Thump, thud", "Thunk"), ("Basketball bounce", "Whip"), ("Clang", "Clang"),
        ("Plop", "Plop"), ("Thunder", "Thunder"), ("Drum", "Bass drum"),
    ),
    "ambience": (
        ("Chatter", "Children playing"), ("Insect", "Bee, wasp, etc."), ("Wind", "Thunderstorm"), ("Water", "Crackle"),
        ("Traffic noise, roadway noise", "Train"), ("Subway, metro, underground", "Fixed-wing aircraft, airplane"),
        ("Engine", "Heavy engine (low frequency)"), ("Idling", "Idling"), ("Mechanical fan", "Air conditioning"),
        ("Rumble", "Rumble"), ("Hum", "Hum"),
    ),
}  # fmt: skip


def members(labels: Sequence[str], runs: Runs) -> frozenset[str]:
    """The labels in these runs of the list. A run whose ends a model does not have is left out."""
    at = {label: k for k, label in enumerate(labels)}
    return frozenset(
        label
        for first, last in runs
        if first in at and last in at
        for label in labels[at[first] : at[last] + 1]
    )  # fmt: skip


def ancestors(labels: Sequence[str]) -> dict[str, frozenset[str]]:
    """Label -> all classes that contain it, for every label of the list."""
    direct: dict[str, set[str]] = {label: set() for label in labels}
    for parent, first, last in DESCENDANTS:
        for label in members(labels, ((first, last),)):
            direct[label].add(parent)
    out: dict[str, frozenset[str]] = {}
    for label in labels:
        found: set[str] = set()
        waiting = list(direct[label])
        while waiting:
            parent = waiting.pop()
            if parent not in found and parent != label:
                found.add(parent)
                waiting += direct.get(parent, ())
        out[label] = frozenset(found)
    return out


def functions(labels: Sequence[str]) -> dict[str, Function]:
    """Label -> what such a sound does, where its name alone says so."""
    return {label: function for function, runs in FUNCTIONS.items() for label in members(labels, runs)}
