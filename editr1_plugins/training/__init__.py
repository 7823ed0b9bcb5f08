"""RL of unmodified diffusers editors: the seam (`rollout`), what guards it (`preflight`), objectives, the trainers.

Nothing is imported here: `editr1_plugins.training.sde` and `.advantage` are arithmetic, the rest loads diffusers.
"""
