"""How each alternative is trained: one module each, with `recipe(job)`, what decides the outcome, and `train(job)`."""
