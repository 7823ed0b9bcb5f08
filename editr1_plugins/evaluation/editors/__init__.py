"""How good is an editor: `running.evaluate_editor` edits a benchmark's pictures, has them judged, and counts."""
