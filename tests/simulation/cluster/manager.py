"""Who decides which node is the primary: looks every half second, and promotes the standby that has most when the primary is away.

Only with the word of both standbys, and the other one turned to the promoted one at once: what an old primary goes on writing is
confirmed by nobody. It comes back as a copy. A manager that is wrong promotes the one that lags behind; when that turns out to lack
what a store was answered, the other one is promoted after it.
"""

from typing import TYPE_CHECKING

from .database import NODES, Place, Server
from .tables import Tables

if TYPE_CHECKING:
    from .world import ClusterWorld

LOOK_SECONDS = 0.5


class Manager:
    """One world's."""

    def __init__(self, world: "ClusterWorld", patience: float) -> None:
        """patience: seconds for which a primary may be away."""
        self._world, self._patience = world, patience
        self.places = {name: Place(name) for name in NODES}
        self.primary = self.places["n1"]
        self.primary.is_primary = True
        for name in NODES[1:]:
            self.places[name].upstream = "n1"
        self.servers: dict[str, Server] = {}
        self._away_since: float | None = None
        self.is_wrong, self.wrong_since = False, 0.0
        """Whether a standby was promoted that may lack what was answered, and that was not put right yet."""

    def look(self) -> None:
        world = self._world
        now = world.kernel.now
        if self.is_away(self.primary.name):
            self._away_since = now if self._away_since is None else self._away_since
            standbys = [place for place in self.places.values() if not place.is_primary]
            is_over = now - self._away_since >= self._patience
            if is_over and len(standbys) == 2 and not any(self.is_away(place.name) for place in standbys):
                self.promote(max(standbys, key=lambda place: len(place.log)))
        else:
            self._away_since = None
        for place in self.places.values():
            if place.is_primary and place is not self.primary and not self._is_cut_off(place.name) and world.chance.random() < 0.3:
                self.copy(place)
        world.later(LOOK_SECONDS, self.look)

    def is_away(self, name: str) -> bool:
        process = self._world.hosts[name]
        return not process.is_alive or process.is_stopped or self._is_cut_off(name)

    def _is_cut_off(self, name: str) -> bool:
        return all(self._world.network.route(name, other).is_held for other in NODES if other != name)

    def promote(self, place: Place) -> None:
        """Make a standby the primary, and have those follow it that can."""
        world = self._world
        world.judge.seen["promotions"] += 1
        self._away_since = None
        place.timeline = max(other.timeline for other in self.places.values()) + 1
        place.is_primary, place.upstream, self.primary = True, "", place
        self._restart(place)
        for other in self.places.values():
            if not other.is_primary:
                self._turn(other)
        world.on_promotion(place)

    def _turn(self, standby: Place) -> None:
        server = self.servers.get(standby.name)
        standby.upstream = self.primary.name
        if server is not None and server.process.is_alive:
            server.turn_to(self.primary.name)

    def _restart(self, place: Place) -> None:
        self._world.rest[place.name] = 0.05
        process = self._world.hosts[place.name]
        if process.is_alive:
            process.die()

    def copy(self, place: Place) -> None:
        """Throw away what a node has, and make it a standby with a copy of the primary's."""
        place.log = list(self.primary.log)
        place.is_primary, place.timeline, place.upstream = False, self.primary.timeline, self.primary.name
        self._restart(place)
        self._world.on_second_disk(place)

    # --- a manager that is wrong ---

    def promote_wrongly(self, patience: float) -> None:
        """Kill the primary; promote the standby that has less. Later the old primary is a copy of it; then see what was lost."""
        standbys = sorted((place for place in self.places.values() if not place.is_primary), key=lambda place: len(place.log))
        old = self.primary
        if len(standbys) < 2 or len(standbys[0].log) == len(standbys[1].log) or self.is_wrong:
            return
        behind, ahead = standbys
        if any(map(self._world.is_on_its_way, ahead.log[len(behind.log) :])):
            return
        self._world.rest[old.name] = 1.0
        self._world.hosts[old.name].die()
        self.is_wrong, self.wrong_since = True, self._world.kernel.now
        ahead.upstream = ""  # it has forked off: it cannot follow
        server = self.servers.get(ahead.name)
        if server is not None and server.process.is_alive:
            server.turn_to("")
        self.promote(behind)
        ahead.upstream = ""
        if server is not None and server.process.is_alive:
            server.turn_to("")
        self._world.later(0.3, self._copy_old, old)
        self._world.later(patience, self._put_right, ahead)

    def _copy_old(self, old: Place) -> None:
        if old is not self.primary:
            self.copy(old)

    def _put_right(self, ahead: Place) -> None:
        """If stores were answered what the primary lacks, promote the standby that has it; else that one becomes a copy, too."""
        self.is_wrong = False
        if self._world.lost_groups():
            wrong = self.primary
            self.promote(ahead)
            self.copy(wrong)
        for place in self.places.values():
            if place is not self.primary and not (place.is_behind(self.primary) and place.upstream == self.primary.name):
                self.copy(place)

    def tables(self) -> Tables:
        """Return what the primary's log says."""
        tables = Tables()
        for entry in self.primary.log:
            tables.apply(entry.changes)
        return tables
