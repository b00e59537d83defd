"""What a worker does beside its requests, from its start to its end."""

import asyncio


class Background:
    """Has one task of its own, which runs `_run`."""

    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, on a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End, wherever it is."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        raise NotImplementedError
