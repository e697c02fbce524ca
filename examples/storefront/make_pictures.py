"""Makes pictures/*.svg, the shop's own pictures: flat shapes of a few colours on a tinted ground.

    python3 make_pictures.py

Each function draws one product in a square of 200 by 200; the ground is its category's.
"""

import math
from pathlib import Path

OUT = Path(__file__).resolve().parent / "pictures"
INK, CREAM, GREEN, GOLD, RED, BROWN = "#2a211a", "#fbf3e0", "#2f7a52", "#e0a526", "#a83224", "#7a4b26"
GROUNDS = {
    "clothing": ("#f5e3c4", "#eed4a6"), "shoes": ("#dfe9da", "#cddcc7"), "electronics": ("#dde6ee", "#cad8e4"),
    "home_items": ("#f2dfd3", "#e8cbb9"), "groceries": ("#eef0cd", "#e1e5b0"), "gifts": ("#f1dde0", "#e6c7cd"),
}


def path(d, fill="none", stroke=None, width=4):
    line = f' stroke="{stroke}" stroke-width="{width}" stroke-linecap="round" stroke-linejoin="round"' if stroke else ""
    return f'<path d="{d}" fill="{fill}"{line}/>'


def rect(x, y, w, h, fill, r=0):
    return f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{r}" fill="{fill}"/>'


def ellipse(x, y, rx, ry, fill):
    return f'<ellipse cx="{x}" cy="{y}" rx="{rx}" ry="{ry}" fill="{fill}"/>'


def kente(x, y, w, h, step=8):
    """A woven strip, from top to bottom."""
    colors = [GOLD, GREEN, INK, GOLD, RED]
    n = math.ceil(h / step)
    rows = [rect(x, y + i * step, w, min(step, h - i * step), colors[i % 5]) for i in range(n)]
    marks = [rect(x + w / 3, y + i * step + 2, w / 3, step - 4, CREAM) for i in range(0, n - 1, 2)]
    return "".join(rows + marks)


def shirt():
    body = "M72 46 40 66l14 34 14-7v67h64V93l14 7 14-34-32-20c-6 12-16 16-28 16s-22-4-28-16Z"
    return (path(body, "#fdfbf5", "#cbbd9f", 2) + kente(92, 62, 16, 98) + path("M72 46c6 12 16 16 28 16s22-4 28-16l-7-3c-5 7-12 10-21 10s-16-3-21-10Z", GOLD)
            + path("M41 68l13 32 6-3-13-33ZM159 68l-13 32-6-3 13-33Z", GREEN))


def dress():
    body = "M80 38h8c2 8 6 12 12 12s10-4 12-12h8l6 30-10 22 36 74H48l36-74-10-22Z"
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="6" fill="{RED}"/><circle cx="{x}" cy="{y}" r="2.4" fill="{GOLD}"/>'
                   for x, y in [(100, 112), (82, 130), (118, 130), (68, 152), (100, 148), (132, 152), (92, 72), (108, 66)])
    return path(body, "#e8b62e") + dots + rect(83, 86, 34, 8, GREEN, 3) + path("M48 164h104l-4-8H52Z", GREEN)


def tshirt():
    return (path("M74 48 38 68l14 34 16-8v64h64V94l16 8 14-34-36-20c-6 10-15 14-26 14s-20-4-26-14Z", "#2c2a29")
            + path("M74 48c6 10 15 14 26 14s20-4 26-14", "none", "#55504c", 4) + path("M68 96v58M132 96v58", "none", "#3d3a38", 3))


def headwrap():
    return (ellipse(100, 120, 38, 46, "#8a5a3b") + path("M56 104c-6-40 20-64 46-64s50 22 42 64c-24-16-62-18-88 0Z", GOLD)
            + path("M58 98c20-34 50-44 80-42M58 82c20-26 40-34 66-36M74 100c18-22 44-30 70-28", "none", "#b5761a", 4)
            + path("M126 52c8-22 34-26 42-12 6 12-6 24-22 24 18 0 24 14 14 22-12 8-28-6-34-22Z", "#c98a1c") + ellipse(128, 60, 9, 10, "#9a6412")
            + f'<circle cx="61" cy="128" r="5" fill="{RED}"/><circle cx="139" cy="128" r="5" fill="{RED}"/>')


def sneakers():
    return (path("M34 128V92c0-6 8-8 12-3 6 8 18 9 26 1l10-8c4-3 8-2 11 2 16 22 36 28 62 32 10 2 14 8 14 16v6H34Z", "#fffdf8", "#c9c3b4", 2)
            + path("M30 134h142v6c0 6-4 10-10 10H40c-6 0-10-4-10-10Z", "#d9d2c2") + path("M34 134h136", "none", GREEN, 4)
            + path("M88 92l-12 12M98 102l-12 12M110 110l-10 12", "none", INK, 4) + path("M140 118c-6 6-6 12-4 16h33v-2c0-8-4-12-14-13Z", RED))


def sandals():
    def one(x, turn):
        return (f'<g transform="translate({x} 100) rotate({turn})">' + path("M0-62c20 0 26 22 22 44-3 16-4 26-2 42 2 22-6 40-20 40s-22-18-20-40c2-16 1-26-2-42-4-22 2-44 22-44Z", "#4a2c17")
                + path("M0-52c14 0 18 16 15 35-3 16-4 26-2 41 2 18-4 30-13 30s-15-12-13-30c2-15 1-25-2-41-3-19 1-35 15-35Z", "#c08a4e")
                + path("M0-34C-12-20-20-6-22 8M0-34C12-20 20-6 22 8", "none", INK, 11) + f'<circle cx="0" cy="-24" r="11" fill="{GOLD}"/><circle cx="0" cy="-24" r="5" fill="{RED}"/></g>')
    return one(68, -8) + one(134, 8)


def slippers():
    def one(x, turn):
        return (f'<g transform="translate({x} 100) rotate({turn})">' + path("M0-60c22 0 28 22 23 46-3 16-4 24-2 40 2 22-6 36-21 36s-23-14-21-36c2-16 1-24-2-40-5-24 1-46 23-46Z", "#24559c")
                + path("M0-53c16 0 21 18 17 38-3 16-4 25-2 41 2 17-4 29-15 29s-17-12-15-29c2-16 1-25-2-41-4-20 1-38 17-38Z", "#f4efe2")
                + path("M0-34C-14-18-20-6-21 8M0-34C14-18 20-6 21 8", "none", "#24559c", 8) + '<circle cx="0" cy="-35" r="5" fill="#1b4079"/></g>')
    return one(68, -8) + one(134, 8)


def school_shoes():
    return (path("M32 132V84c0-4 4-6 8-5l34 8c6 2 9 6 12 12 8 14 34 12 58 18 18 4 26 12 26 22v6H32Z", "#211d1b") + rect(28, 142, 144, 12, "#4b3b30", 5)
            + path("M58 84c-6 14-6 30 0 46l24 4c6-14 8-26 4-38l-6-8Z", "#35302d") + rect(52, 98, 42, 12, "#4a4440", 4)
            + rect(72, 95, 16, 18, GOLD, 3) + rect(76, 99, 8, 10, "#4a4440", 1) + path("M130 122c14 2 26 6 32 14", "none", "#5b5450", 3))


def phone():
    return (rect(64, 28, 72, 144, "#1c2b3a", 14) + rect(69, 34, 62, 132, "#f9edd0", 9) + rect(69, 34, 62, 44, GREEN, 9) + rect(69, 60, 62, 18, GREEN)
            + path("M82 62v-8M92 66V50M102 70V46M112 66V50M122 62v-8", "none", CREAM, 5) + "".join(rect(77 + 25 * (i % 2), 90 + 25 * (i // 2), 20, 20, c, 6) for i, c in enumerate([GOLD, RED, "#24559c", GREEN]))
            + rect(77, 146, 45, 8, "#d8c79d", 4) + rect(92, 37, 16, 4, "#1c2b3a", 2))


def laptop():
    return (rect(44, 48, 112, 80, "#2b333b", 8) + rect(51, 55, 98, 66, "#f6ebd2", 3) + path("M51 106l26-24 20 18 24-28 28 30v19H51Z", GREEN)
            + f'<circle cx="76" cy="72" r="8" fill="{GOLD}"/>' + path("M28 132h144l10 14c2 3 0 6-4 6H22c-4 0-6-3-4-6Z", "#b9bfc6") + rect(82, 132, 36, 6, "#8f979f", 3))


def earphones():
    return (path("M66 70c-30 30-22 78 20 82 36 4 40-30 20-40-22-10-36 16-14 26M134 70c16 26 14 60-20 62", "none", INK, 4)
            + path("M52 66a20 20 0 1 1 34 14l-8 18-14-4 2-14a20 20 0 0 1-14-14Z", "#fffdf8", "#c9c3b4", 2) + path("M148 66a20 20 0 1 0-34 14l8 18 14-4-2-14a20 20 0 0 0 14-14Z", "#fffdf8", "#c9c3b4", 2)
            + ellipse(70, 64, 8, 9, RED) + ellipse(130, 64, 8, 9, RED) + rect(104, 124, 10, 20, GOLD, 5))


def lamp():
    rays = "".join(path(f"M{100 + 50 * math.cos(a):.0f} {72 + 50 * math.sin(a):.0f}L{100 + 64 * math.cos(a):.0f} {72 + 64 * math.sin(a):.0f}", "none", GOLD, 6)
                   for a in [math.pi + i * math.pi / 6 for i in range(7)])
    return (rays + f'<circle cx="100" cy="72" r="40" fill="#ffe9a3"/>' + f'<circle cx="100" cy="72" r="28" fill="#ffd451"/>' + rect(84, 106, 32, 12, "#3a4450", 4)
            + path("M92 118h16v30H92Z", "#56626f") + rect(60, 146, 80, 22, "#24394d", 6) + path("M64 157h72M80 147v20M100 147v20M120 147v20", "none", "#5f86a8", 2))


def asanka():
    lines = "".join(path(f"M{100 + 52 * math.cos(a):.0f} {92 + 15 * math.sin(a):.0f}L{100 + 14 * math.cos(a):.0f} {96 + 4 * math.sin(a):.0f}", "none", "#57301a", 2)
                    for a in [i * math.pi / 8 for i in range(16)])
    return (path("M34 92h132c0 38-26 64-66 64s-66-26-66-64Z", "#8a4f2b") + ellipse(100, 92, 66, 21, "#a2633a") + ellipse(100, 93, 57, 16, "#6d3c20") + lines
            + path("M44 116c30 12 82 12 112 0", "none", "#6d3c20", 3) + '<g transform="rotate(28 122 66)">' + path("M112 30c0-10 20-10 20 0l-4 26 8 26c2 12-30 12-28 0l8-26Z", "#d3a063") + "</g>")


def pot():
    return (path("M40 86h120v50c0 18-14 28-30 28H70c-16 0-30-10-30-28Z", "#aeb4ba") + path("M40 86h26v76c-16-3-26-12-26-26Z", "#8f969d")
            + path("M24 98h18M158 98h18", "none", "#6d747b", 10) + path("M36 84c4-22 30-32 64-32s60 10 64 32Z", "#c8cdd2") + rect(32, 82, 136, 9, "#7d848b", 4)
            + rect(88, 40, 24, 14, INK, 6) + path("M124 104v38", "none", "#d3d8dc", 6))


def stool():
    return (path("M28 62c24 22 120 22 144 0l4 18c-26 24-126 24-152 0Z", "#8a552b") + path("M28 62c24 22 120 22 144 0-4 14-40 22-72 22s-68-8-72-22Z", "#b27a44")
            + path("M52 92h18l-6 54H44ZM148 92h-18l6 54h20Z", "#7a4a24") + path("M84 96h32l-6 16 10 16-10 18H90l-10-18 10-16Z", "#965f31")
            + path("M100 106l12 16-12 16-12-16Z", GOLD) + path("M30 146h140v14H30Z", "#6b3f1e"))


def blanket():
    folds = [(RED, 112, 34), (GREEN, 84, 30), (GOLD, 58, 28)]
    body = "".join(rect(36, y, 128, h, c, 13) + path(f"M44 {y + h / 2}h112", "none", CREAM, 3)
                   + "".join(path(f"M{x} {y + 7}l6 {h / 2 - 7}-6 {h / 2 - 7}-6-{h / 2 - 7}Z", INK if c == GOLD else GOLD) for x in range(64, 150, 24)) for c, y, h in folds)
    return body + "".join(path(f"M{x} 146v12", "none", RED, 3) for x in range(48, 158, 8))


def rice():
    grains = "".join(f'<ellipse cx="{x}" cy="{y}" rx="7" ry="2.8" fill="#fffdf5" transform="rotate({t} {x} {y})"/>' for x, y, t in
                     [(76, 118, 20), (94, 112, -30), (112, 118, 12), (88, 126, 60), (104, 128, -15), (122, 127, 40), (80, 135, -10), (98, 139, 18), (115, 138, -35)])
    return (path("M60 44c14 6 66 6 80 0l8 24c10 30 10 66 2 92H50c-8-26-8-62 2-92Z", "#efe3c6", "#cdbb8f", 2) + path("M56 60c20 8 68 8 88 0", "none", RED, 6)
            + rect(62, 80, 76, 68, GREEN, 8) + grains + path("M86 100c10-14 20-14 28 0", "none", GOLD, 4) + path("M100 102V86", "none", GOLD, 4))


def oil():
    return (rect(88, 30, 24, 18, GREEN, 4) + path("M90 48h20v14c16 6 24 16 24 30v64c0 8-5 12-12 12H78c-7 0-12-4-12-12V92c0-14 8-24 24-30Z", "#f3d9b0")
            + path("M66 98h68v58c0 8-5 12-12 12H78c-7 0-12-4-12-12Z", "#cf4a17") + rect(72, 108, 56, 40, CREAM, 6)
            + "".join(f'<circle cx="{x}" cy="{y}" r="7" fill="{c}"/>' for x, y, c in [(92, 132, RED), (108, 132, "#c2401a"), (100, 120, RED)]) + path("M120 72c6 6 8 12 8 20", "none", "#fff8ea", 4))


def plantain():
    def finger(turn, shade):
        return f'<g transform="rotate({turn} 100 46)">' + path("M92 46c-14 40-10 84 18 114 6 5 12 0 10-6-14-34-14-70-10-108Z", shade) + path("M100 50c-8 36-4 72 14 104", "none", "#4f7a22", 2) + "</g>"
    return finger(42, "#6a9430") + finger(-40, "#6a9430") + finger(22, "#7ba63a") + finger(-20, "#88b244") + finger(2, "#98c04f") + path("M84 52c4-14 8-20 8-30h16c0 10 4 16 8 30Z", "#5b4a22")


def sugar():
    return (path("M62 52h76l6 12v96c0 5-3 8-8 8H64c-5 0-8-3-8-8V64Z", "#fffdf8", "#cfc6b2", 2) + path("M62 52h76l6 12H56Z", "#d8e6f2") + rect(56, 84, 88, 52, "#24559c")
            + "".join(f'<g transform="translate({x} {y})">' + path("M0-14 14-7 0 0-14-7Z", "#fff") + path("M-14-7 0 0v15l-14-7Z", "#dfe8f0") + path("M14-7 0 0v15l14-7Z", "#c6d4e0") + "</g>" for x, y in [(86, 114), (114, 114), (100, 106)])
            + path("M68 148h64", "none", GOLD, 5))


def beads():
    colors = [GOLD, "#24559c", RED, GREEN, CREAM]
    out = path("M62 40C30 92 44 156 100 156s70-64 38-116", "none", "#6b4a2b", 3)
    for i in range(19):
        a = math.pi * (0.12 + 0.76 * i / 18) + math.pi / 2 - math.pi / 2
        x, y = 100 - 62 * math.cos(a) * (1.02 if 3 < i < 15 else 1), 62 + 90 * math.sin(a)
        big = 11 if i == 9 else 8.5
        out += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{big}" fill="{colors[i % 5]}" stroke="{INK}" stroke-width="1.5"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2.4" fill="{INK}"/>'
    return out


def chocolate():
    pieces = "".join(rect(50 + 26 * (i % 4), 74 + 26 * (i // 4), 22, 22, "#4b2814", 5) + path(f"M{55 + 26 * (i % 4)} {85 + 26 * (i // 4)}h12", "none", "#7d4a2a", 3) for i in range(12))
    return rect(38, 62, 124, 98, RED, 8) + rect(44, 68, 112, 86, "#f2dcb4", 5) + pieces + path("M38 62l20-22h110l-6 22Z", "#c4503f") + path("M96 62l14-22h14l-12 22Z", GOLD)


def bag():
    rows = "".join(path(f"M{48 - i} {92 + 14 * i}l{(104 + 2 * i) / 8} 7 {(104 + 2 * i) / 8}-7 {(104 + 2 * i) / 8} 7 {(104 + 2 * i) / 8}-7 {(104 + 2 * i) / 8} 7 {(104 + 2 * i) / 8}-7 {(104 + 2 * i) / 8} 7 {(104 + 2 * i) / 8}-7",
                        "none", [RED, GREEN, INK][i % 3], 5) for i in range(5))
    return path("M68 84c0-60 64-60 64 0", "none", BROWN, 9) + path("M46 80h108l10 74c1 8-4 12-12 12H48c-8 0-13-4-12-12Z", "#d9ac63") + rows + rect(44, 76, 112, 10, BROWN, 5)


def drum():
    cords = "".join(path(f"M{56 + 11 * i} 66l{5.5} 52 {5.5}-52", "none", CREAM, 2) for i in range(8))
    return (path("M50 60h100l-14 62c-2 10-6 16-6 24l6 20H64l6-20c0-8-4-14-6-24Z", "#9a4f26") + cords + ellipse(100, 60, 50, 17, "#f3e2bf") + ellipse(100, 60, 41, 13, "#fbf1da")
            + path("M50 60c0 24 100 24 100 0", "none", INK, 4) + path("M66 126h68", "none", GOLD, 7) + path("M66 162h68", "none", RED, 6)
            + '<g transform="rotate(-32 150 40)">' + rect(118, 34, 62, 7, "#d3a063", 3) + '<circle cx="116" cy="37.500" r="8" fill="#c08a4e"/></g>')


PICTURES = {
    "clothing": [shirt, dress, tshirt, headwrap], "shoes": [sneakers, sandals, slippers, school_shoes],
    "electronics": [phone, laptop, earphones, lamp], "home_items": [asanka, pot, stool, blanket],
    "groceries": [rice, oil, plantain, sugar], "gifts": [beads, chocolate, bag, drum],
}


def main():
    OUT.mkdir(exist_ok=True)
    for category, draws in PICTURES.items():
        ground, shade = GROUNDS[category]
        for draw in draws:
            name = draw.__name__.replace("_", "-")
            scene = rect(0, 0, 200, 200, ground) + f'<circle cx="100" cy="98" r="84" fill="{shade}"/>' + ellipse(100, 170, 62, 7, "#00000024")
            (OUT / f"{name}.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 200 200">{scene}{draw()}</svg>\n', encoding="utf-8")


if __name__ == "__main__":
    main()
