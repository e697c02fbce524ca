#!/usr/bin/env bash
# Makes the sound files that core/tests/audio_formats.rs reads: one short utterance in every
# format that a browser, a phone or a curl user sends. The files are committed; run this only to
# change them. Needs espeak-ng, ffmpeg (libmp3lame, libvorbis, libopus, native aac) and sox.
#
# `speech.wav` (16 kHz, mono, 16 bit) is the reference that every other file is compared with, and
# every other file is made from it or from the same synthesis at a higher rate.
# `mediarecorder.webm` comes from a real browser: record_mediarecorder.mjs.
set -euo pipefail
# shellcheck disable=SC2046  # `part` prints arguments to be split
cd "$(dirname "$0")"

ff() { ffmpeg -nostdin -hide_banner -loglevel error -y -fflags +bitexact "$@"; }
# Bit-exact muxing and no metadata: the same tools make the same bytes.
exact=(-map_metadata -1 -flags:a +bitexact -fflags +bitexact)

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# espeak-ng speaks at 22.05 kHz. 0.1 s of silence at both ends keeps codec edges off the speech.
espeak-ng -v sw -s 230 -w "$tmp/espeak.wav" 'Fa yei to cart no mu'
sox -D "$tmp/espeak.wav" -r 22050 "$tmp/speech22.wav" silence 1 0.01 0.1% reverse silence 1 0.01 0.1% reverse pad 0.1 0.1 gain -n -6
sox -D "$tmp/speech22.wav" -r 48000 "$tmp/speech48.wav" rate -v

# The reference.
sox -D "$tmp/speech48.wav" -r 16000 -c 1 -b 16 speech.wav rate -v
ref=speech.wav

# WAV: the same samples in each sample format (8-bit and the laws are lossy). `part S T` cuts T
# seconds out of the reference, from second S on, so that the files stay small.
part() { echo -ss "$1" -t "$2" -i "$3"; }
ff $(part 0.3 0.6 "$ref") "${exact[@]}" -c:a pcm_u8    wav_u8.wav
ff $(part 0.3 0.4 "$ref") "${exact[@]}" -c:a pcm_s24le wav_s24.wav
ff $(part 0.3 0.3 "$ref") "${exact[@]}" -c:a pcm_s32le wav_s32.wav
ff $(part 0.3 0.3 "$ref") "${exact[@]}" -c:a pcm_f32le wav_f32.wav
ff $(part 0.3 0.15 "$ref") "${exact[@]}" -c:a pcm_f64le wav_f64.wav
ff $(part 0.3 0.6 "$ref") "${exact[@]}" -c:a pcm_alaw  wav_alaw.wav
ff $(part 0.3 0.6 "$ref") "${exact[@]}" -c:a pcm_mulaw wav_mulaw.wav
# As written to a pipe: the sizes in the header are unknown (0xffffffff).
ff $(part 0.3 0.4 "$ref") "${exact[@]}" -c:a pcm_s16le -f wav - | cat > wav_s16_piped.wav
# The speech is in the first channel only, the others are silent: the mean is 1/2 and 1/6 of it.
ff $(part 0.3 0.15 "$tmp/speech48.wav") "${exact[@]}" -ar 44100 \
   -af 'pan=stereo|c0=c0|c1=0*c0' -c:a pcm_s16le wav_s16_44100_stereo.wav
# WAVE_FORMAT_EXTENSIBLE.
ff $(part 0.3 0.06 "$tmp/speech48.wav") "${exact[@]}" \
   -af 'pan=5.1|c0=c0|c1=0*c0|c2=0*c0|c3=0*c0|c4=0*c0|c5=0*c0' -c:a pcm_s16le wav_s16_48000_51.wav

# Compressed.
ff -i "$ref" "${exact[@]}" -c:a flac -compression_level 8 speech.flac
ff -i "$ref" "${exact[@]}" -c:a libmp3lame -b:a 40k speech.mp3
ff -i "$ref" "${exact[@]}" -c:a libvorbis -q:a 4 speech_vorbis.ogg
ff -i "$tmp/speech48.wav" "${exact[@]}" -c:a libopus -b:a 32k -application audio speech_opus.ogg
# SILK and hybrid modes at a telephone's bit rate, 60 ms packets.
ff -i "$tmp/speech48.wav" "${exact[@]}" -c:a libopus -b:a 14k -application voip -frame_duration 60 speech_opus_voip.ogg
ff -i "$tmp/speech48.wav" "${exact[@]}" -c:a libopus -b:a 32k -f webm speech_opus.webm
ff -i "$tmp/speech48.wav" "${exact[@]}" -ac 2 -c:a libopus -b:a 40k speech_opus_stereo.mkv
ff -i "$tmp/speech48.wav" "${exact[@]}" -ar 32000 -c:a aac -b:a 40k speech.m4a
# Fragmented, as Safari's MediaRecorder writes it.
ff -i "$tmp/speech48.wav" "${exact[@]}" -ar 48000 -c:a aac -b:a 40k -movflags +frag_keyframe+empty_moov+default_base_moof speech_fragmented.mp4
# Opus in MP4, as Chromium's MediaRecorder writes it for audio/mp4.
ff -i "$tmp/speech48.wav" "${exact[@]}" -c:a libopus -b:a 32k speech_opus.mp4

# What the reference decoder (libopus, not ffmpeg's own) makes of two of the Opus files, at the
# codec's own 48 kHz: samples 14400 to 28799, that is from 0.3 s to 0.6 s.
for name in speech_opus speech_opus_voip; do
  ff -c:a libopus -i $name.ogg -c:a pcm_s16le "$tmp/$name.wav"
  sox -D "$tmp/$name.wav" "$tmp/$name.cut.wav" trim 14400s 14400s
  ff -i "$tmp/$name.cut.wav" "${exact[@]}" -c:a pcm_s16le ${name}_decoded_48000.wav
done

du -cb ./*.wav ./*.flac ./*.mp3 ./*.ogg ./*.webm ./*.mkv ./*.m4a ./*.mp4 | sort -n
