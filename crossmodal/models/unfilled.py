"""Networks without random weights, for those whose every weight is read from a file right after they are built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.overrides import TorchFunctionMode


class Unfilled(TorchFunctionMode):
    """Within it ``torch.nn.init`` does nothing: random numbers that nobody sees take a tenth of a second.

    >>> with Unfilled():                                      # doctest: +SKIP
    ...     network = SpeakerEncoder(config)
    >>> network.load_state_dict(state)                        # doctest: +SKIP
    """

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``function``, unless it fills a tensor: that is returned as it is."""
        kwargs = kwargs or {}
        if getattr(function, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)
