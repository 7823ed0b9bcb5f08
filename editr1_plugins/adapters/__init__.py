"""One scorer in other trainers' and evaluators' shapes, and a server for the rest."""
