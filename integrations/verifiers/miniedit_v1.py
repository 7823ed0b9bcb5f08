"""A taskset of verifiers: an agent edits MiniEdit's drawings with a brush, and our reward judges what it has made.

The reward stands in no line here; the job plugs it in, see `eval.toml`.
"""

import base64
from io import BytesIO

import verifiers.v1 as vf
from PIL import Image, ImageDraw

from editr1_plugins.adapters.conversion import as_image
from editr1_plugins.backends.image_uri import ImageURIs
from editr1_plugins.miniedit.pairs import split_tasks
from editr1_plugins.miniedit.world import draw

__all__ = ["MiniEditTaskset"]

SYSTEM = "Edit the image of 32x32 pixels as you are asked. Only what you paint with the tool counts."


class EditData(vf.TaskData):
    source: str
    instruction: str


class Brush(vf.Toolset[vf.ToolsetConfig]):
    TOOL_PREFIX = "brush"

    async def setup_task(self, task: EditData) -> None:
        self._canvas: Image.Image = as_image(task.source).copy()

    @vf.tool
    def paint(self, left: int, top: int, right: int, bottom: int, colour: str, shape: str = "rectangle") -> list:
        """Fill a "rectangle" or an "ellipse" of these pixels with a colour (#rrggbb); returns the image so far."""
        from mcp.types import ImageContent, TextContent

        pen = ImageDraw.Draw(self._canvas)
        (pen.ellipse if shape == "ellipse" else pen.rectangle)((left, top, right, bottom), fill=colour)
        buffer = BytesIO()
        self._canvas.save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        return [TextContent(type="text", text="painted"), ImageContent(type="image", data=data, mimeType="image/png")]


class EditTaskConfig(vf.TaskConfig):
    tools: vf.ToolsetConfig = vf.ToolsetConfig()


class EditTask(vf.Task[EditData, vf.State, EditTaskConfig]):
    @classmethod
    def toolsets(cls, config: EditTaskConfig) -> list[vf.Toolset]:
        return [Brush(config.tools)]


class MiniEditConfig(vf.TasksetConfig):
    count: int = 20
    seed: int = 7
    task: EditTaskConfig = EditTaskConfig()


class MiniEditTaskset(vf.Taskset[EditTask, MiniEditConfig]):
    def load(self) -> list[EditTask]:
        uri_of = ImageURIs()
        tasks = []
        for number, drawn in enumerate(split_tasks(self.config.count, seed=self.config.seed, held_out=True)):
            source = uri_of(draw(drawn.scene))
            content = [{"type": "image_url", "image_url": {"url": source}}, {"type": "text", "text": drawn.instruction}]
            data = EditData(
                idx=number,
                prompt=[{"role": "user", "content": content}],
                system_prompt=SYSTEM,
                source=source,
                instruction=drawn.instruction,
            )
            tasks.append(EditTask(data, self.config.task))
        return tasks


if __name__ == "__main__":
    Brush.run()
