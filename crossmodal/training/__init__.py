"""Training: one loop, one task per thing trained.

| what | where |
| --- | --- |
| the loop: :func:`~crossmodal.training.core.fit` | :mod:`~crossmodal.training.core` |
| its settings | :mod:`~crossmodal.training.config` |
| what a task has to say | :mod:`~crossmodal.training.task` |
| the tasks | :mod:`~crossmodal.training.tasks` |
| order of the data, random numbers | :mod:`~crossmodal.training.loading` |
| checkpoints | :mod:`~crossmodal.training.checkpoints` |
| several processes | :mod:`~crossmodal.training.parallel` |
| optimisers and schedules, running average | :mod:`~crossmodal.training.schedules`, :mod:`~crossmodal.training.ema` |
| log, TensorBoard, progress bar | :mod:`~crossmodal.training.logging` |
| recipes: ``crossmodal train`` | :mod:`~crossmodal.training.recipe` |
| throughput: ``crossmodal train --benchmark`` | :mod:`~crossmodal.training.benchmark` |
"""
