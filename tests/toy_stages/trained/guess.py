"""How warm the light of a room is, as a trained network of four numbers sees it."""

from __future__ import annotations

from dataclasses import dataclass

from geomagic_dagster.cv.stage import Field, Params, minutes, stage
from geomagic_dagster.cv.weights import weights
from tests.toy_stages.trained.look import Look


class GuessParams(Params):
    ask_for: str = Field("net", description="Which weights.")


@dataclass(frozen=True, eq=False)
class Guess:
    warmth: float
    look: Look


@stage(
    version="1",
    timeout=minutes(1),
    weights={"net": "sha256:0000000000000000000000000000000000000000000000000000000000000000"},
)
def guess(look: Look, params: GuessParams = GuessParams()) -> Guess:
    import torch

    net = torch.nn.Linear(3, 1)
    net.load_state_dict(torch.load(weights(params.ask_for), weights_only=True))
    with torch.inference_mode():
        return Guess(net(torch.from_numpy(look.colour_3.copy())).item(), look)


def measure_guess(guess: Guess) -> dict[str, float]:
    return {"warmth": guess.warmth}
