#!/bin/sh
# Speak the golden clips: espeak-ng -> sox -> 16 kHz mono 16-bit FLAC.
#
# usage: make_clips.sh [FOLDER]          FOLDER defaults to clips/ beside this script
# needs: espeak-ng 1.51, sox 14.4 (with FLAC)
#
# No dither (sox -D) and no random voice parts, so the same espeak-ng, sox and libFLAC give the same samples.
# The committed clips are the reference: base/tokens.json was made from them, so after another espeak-ng
# spoke them again, make_golden.py must run again too.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
out=${1:-$here/clips}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$out"

# say NAME VOICE WORDS_PER_MINUTE PITCH STEP TEXT
#
# Peaks are near -6 dBFS. STEP is the distance between two sample values: with 64, all samples are multiples
# of 64 (six "wasted bits" in FLAC's words), which makes the file smaller by 12 kB a second. 1 is full 16 bit.
say() {
    espeak-ng -m -v "$2" -s "$3" -p "$4" -w "$tmp/spoken.wav" "$6"
    sox -D "$tmp/spoken.wav" -b 16 "$tmp/16k.wav" gain -n -6 rate -v 16000 vol "$(awk "BEGIN { print 1 / $5 }")"
    sox -D "$tmp/16k.wav" -b 16 -C 8 "$out/$1.flac" vol "$5"
    printf '%-11s %5.2f s %7d bytes\n' "$1" "$(soxi -D "$out/$1.flac")" "$(wc -c <"$out/$1.flac")"
}

say en_short   en-us          150 50 1  'Please show me the black shoes in size forty two.'
say en_medium  en-gb-x-rp     150 35 64 'The quick brown fox jumps over the lazy dog, and then it goes home to sleep.'
say en_eleven  en-us+f3       145 55 64 'Good morning. I would like to order a new telephone, two pairs of shoes and a red shirt. Please send everything to my home address, and tell me when it will arrive.'
say en_numbers en-gb-scotland 155 45 64 'My order number is 4 7 1 9, the price was 25 dollars and 50 cents, and I paid on March 3rd, 2024.'
say tw_cart    sw             140 50 1  'Fa yei to cart no mu.'
say tw_go_cart tn             140 40 1  'Kɔ cart no mu.'
say tw_shoes   sw+f2          135 60 1  'Kyerɛ me mpaboa foforɔ.'
say sw_shop    sw             140 45 64 'Habari za asubuhi. Nataka kununua viatu vipya leo.'
say fr_shop    fr-fr          150 50 64 'Bonjour, je voudrais acheter une chemise rouge et deux paires de chaussures.'
say en_long    en-us          160 40 128 'The market opens early in the morning. Farmers bring yams, tomatoes, peppers and fresh fish, and they set them out on wooden tables under the trees.
<break time="900ms"/>
By eight o clock the street is full of people. Some come to buy food for the day, some come to meet their friends, and some only come to listen to the music.
<break time="1200ms"/>
An old man sells radios near the gate. He says that every radio has a story, and if you stay long enough, he will tell you all of them.
<break time="900ms"/>
In the afternoon the sun is hot, and the noise becomes softer. The children sleep in the shade.
<break time="1000ms"/>
When the evening comes, the last customers walk slowly home, and the market is quiet again until tomorrow.'
