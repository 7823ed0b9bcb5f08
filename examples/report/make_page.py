"""Records of real edits and the page that shows them: photographs with tone edits and hacks, and MiniEdit's editor.

    python examples/report/make_page.py outputs/report

It writes the edits and `edits.jsonl` into the folder, judges them with the embedded `measure` and the default guards as
`editr1 score --input` would, and makes `page.html` as `editr1 report` does. The picture in the project's README shows
this page.
"""

import json
import sys
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from editr1_plugins.miniedit.model import CALL, load_pipeline
from editr1_plugins.miniedit.pairs import sample_tasks
from editr1_plugins.miniedit.world import draw
from editr1_plugins.report.page import write_report
from editr1_plugins.reward.bulk import score_file

PHOTOS = Path(__file__).parent.parent.parent / "tests" / "assets" / "photos"

# What an editor may return for an instruction: good edits, too much of them, other ones, and hacks.
PHOTO_EDITS = {
    "make the image darker": {
        "good": lambda image: ImageEnhance.Brightness(image).enhance(0.55),
        "weak": lambda image: ImageEnhance.Brightness(image).enhance(0.93),
        "copy": lambda image: image.copy(),
        "border": lambda image: ImageOps.expand(image.resize((464, 464)), 24, "white"),
    },
    "make the image brighter": {
        "good": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
        "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
        "bleached": lambda image: ImageEnhance.Brightness(image).enhance(3.0),
    },
    "turn the photo black and white": {
        "good": lambda image: ImageOps.grayscale(image).convert("RGB"),
        "half": lambda image: ImageEnhance.Color(image).enhance(0.5),
        "vivid": lambda image: ImageEnhance.Color(image).enhance(3.0),
    },
    "increase the contrast": {
        "good": lambda image: ImageEnhance.Contrast(image).enhance(1.5),
        "sharper": lambda image: ImageEnhance.Sharpness(image).enhance(12.0),
    },
}
MINIEDIT_TASKS, EDITS_PER_TASK = 30, 3


def photo_rows(folder: Path) -> list[dict[str, str]]:
    rows = []
    for path in sorted(PHOTOS.glob("*.jpg")):
        source = ImageOps.fit(Image.open(path).convert("RGB"), (512, 512))
        source.save(folder / f"{path.stem}.png")
        for number, (instruction, edits) in enumerate(PHOTO_EDITS.items()):
            for name, edit in edits.items():
                edited = f"{path.stem}-{number}-{name}.png"
                edit(source).save(folder / edited)
                rows.append({"id": edited, "source": f"{path.stem}.png", "edited": edited, "instruction": instruction})
    return rows


def miniedit_rows(folder: Path) -> list[dict[str, str]]:
    import torch

    pipe, rows = load_pipeline("clean"), []
    for number, task in enumerate(sample_tasks(MINIEDIT_TASKS, seed=7)):
        source = draw(task.scene)
        source.save(folder / f"scene-{number}.png")
        made = pipe(
            image=source,
            prompt=task.instruction,
            num_inference_steps=6,
            num_images_per_prompt=EDITS_PER_TASK,
            generator=torch.Generator().manual_seed(number),
            **CALL,
        )
        for which, edited in enumerate(made.images):
            name = f"scene-{number}-{which}.png"
            edited.save(folder / name)
            rows.append({"id": name, "source": f"scene-{number}.png", "edited": name, "instruction": task.instruction})
    return rows


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/report")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [*photo_rows(folder), *miniedit_rows(folder)]
    lines = folder / "edits.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(score_file(lines, folder / "records", verifier="measure", decomposer="rules"))
    print(write_report(folder / "records", folder / "page.html", title="MiniEdit and four photographs"))


if __name__ == "__main__":
    main()
