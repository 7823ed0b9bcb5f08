"""What the verifier `measure` measures: one module per kind of question, pure functions of pixels."""
