"""What the algorithms stand on: `fit` from its arguments to the weights.

The loop and its epochs, schedules, compiled calls, gradients, optimizers, target
networks, statistics and what is printed live here. It uses actors, rollouts, workers,
replicas, models and checkpoints, and knows no algorithm.
"""
