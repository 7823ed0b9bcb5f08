"""MiniEdit: a procedural editing world (32x32 scenes of coloured shapes) and a tiny FLUX.1 Kontext trained on it.

`world` draws scenes and writes instructions, `gold` measures an edit against what the world knows (judges never see
it), `pairs` makes data sets, `model` builds and loads the tiny pipeline whose weights ship with the package.
"""
