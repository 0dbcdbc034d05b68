"""Things, places and scenes look and sound as they should, and the same again from the same generator."""

import numpy as np
import pytest

from scripts.tiny_world.kinds import CATEGORIES, Kind, named_kinds, random_kind
from scripts.tiny_world.looks import draw_look, random_look
from scripts.tiny_world.noise import noise_field, noise_line
from scripts.tiny_world.places import LAYOUTS, named_places, random_place
from scripts.tiny_world.plans import PLANS
from scripts.tiny_world.render import render, render_sound
from scripts.tiny_world.scene import Scene, compose_scene, random_scene
from scripts.tiny_world.voices import FAMILIES, RATE, random_voice, synthesise


@pytest.fixture(scope="module")
def scenes() -> tuple[Scene, ...]:
    rng = np.random.default_rng(0)
    kinds = tuple(random_kind(rng) for _ in range(8))
    places = tuple(random_place(rng) for _ in range(8))
    return tuple(random_scene(rng, kinds, places) for _ in range(12))


def test_rendering_has_the_promised_shape_and_range(scenes: tuple[Scene, ...]) -> None:
    for number, scene in enumerate(scenes):
        frames, wave = render(scene, np.random.default_rng(number), size=48, frames=3, seconds=1.0)
        assert frames.shape == (3, 48, 48, 3) and frames.dtype == np.uint8
        assert wave.shape == (RATE,) and wave.dtype == np.float32
        assert np.isfinite(wave).all() and np.abs(wave).max() <= 0.951
        assert frames.std() > 4, "an empty picture"
        assert np.sqrt(np.mean(wave**2)) > 0.01, "a silent clip"


def test_the_same_generator_gives_the_same_clip(scenes: tuple[Scene, ...]) -> None:
    first, again, other = (
        render(scenes[0], np.random.default_rng(s), size=48, frames=2, seconds=1.0) for s in (5, 5, 6)
    )
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[1], other[1])


def test_random_kinds_and_places_do_not_repeat() -> None:
    rng = np.random.default_rng(0)
    kinds = [random_kind(rng) for _ in range(60)]
    assert len({kind.look for kind in kinds}) == len({kind.voice for kind in kinds}) == 60
    assert {kind.category for kind in kinds} == set(CATEGORIES)
    assert all(kind.name == "" and kind.happening == "" for kind in kinds)
    places = [random_place(rng) for _ in range(30)]
    assert len(set(places)) == 30 and {place.layout for place in places} == set(LAYOUTS)


def test_named_kinds_and_places_are_fixed_and_distinct() -> None:
    kinds, places = named_kinds(), named_places()
    assert kinds == named_kinds() and places == named_places()
    assert len({kind.name for kind in kinds}) == len({kind.happening for kind in kinds}) == len(kinds)
    assert len({place.name for place in places}) == len(places)


@pytest.mark.parametrize("plan", PLANS)
def test_every_body_plan_draws_one_solid_thing(plan: str) -> None:
    look = random_look(np.random.default_rng(3), plan)
    view = draw_look(look, np.random.default_rng(0), 64)
    assert view.shape == (64, 64, 4) and view.dtype == np.float32
    assert view.min() >= 0 and view.max() <= 1
    assert 0.03 < float(view[..., 3].mean()) < 0.9
    assert view[0, 0, 3] == 0


def test_a_flipped_view_is_mirrored() -> None:
    look = random_look(np.random.default_rng(3), "quadruped")
    plain, flipped = (draw_look(look, np.random.default_rng(0), 65, flip=f)[..., 3] for f in (False, True))
    assert np.abs(plain[:, ::-1] - flipped).mean() < 0.01 < np.abs(plain - flipped).mean()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_voice_sounds_at_the_same_level(family: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(3):
        wave = synthesise(random_voice(rng, family), rng, 2 * RATE)
        assert wave.shape == (2 * RATE,) and np.isfinite(wave).all()
        loud = np.sort(np.abs(wave))[RATE:]
        assert np.sqrt(np.mean(loud**2)) == pytest.approx(0.1, rel=0.1)


def _profile(wave: np.ndarray) -> np.ndarray:
    """Log energy in 24 bands a constant ratio apart."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    edges = np.geomspace(60, 7900, 25) * len(wave) / RATE
    return np.log10([power[int(a) : int(b) + 1].sum() + 1e-3 for a, b in zip(edges, edges[1:], strict=False)])


def test_two_recordings_of_a_thing_are_more_alike_than_those_of_two_things() -> None:
    rng = np.random.default_rng(1)
    place, kinds = named_places()[0], named_kinds()

    def record(kind: Kind) -> np.ndarray:
        return _profile(render_sound(compose_scene(rng, place, kind), rng, 2.0))

    references = np.stack([np.mean([record(kind) for _ in range(3)], axis=0) for kind in kinds])
    right = [np.abs(references - record(kind)).sum(1).argmin() == i for i, kind in enumerate(kinds)]
    assert np.mean(right) > 0.7  # chance is 4 percent


def test_noise_lies_as_far_below_the_sound_as_the_scene_says() -> None:
    kind = named_kinds()[0]
    levels = []
    for noise_db in (-30.0, -10.0):
        rng = np.random.default_rng(2)
        scene = compose_scene(rng, named_places()[0], kind, noise_db=(noise_db, noise_db))
        levels.append(render_sound(scene, np.random.default_rng(3), 3.0))
    quiet = [np.sort(np.abs(wave))[: len(wave) // 10].mean() for wave in levels]
    assert quiet[1] > 3 * quiet[0]


def test_noise_has_the_asked_spectrum() -> None:
    field = noise_field(np.random.default_rng(0), 128, 128, exponent=1.5)
    assert field.dtype == np.float32
    assert field.mean() == pytest.approx(0, abs=1e-3) and field.std() == pytest.approx(1, abs=1e-3)
    line = noise_line(np.random.default_rng(0), 4096, exponent=1.5)
    amplitude = np.abs(np.fft.rfft(line))[1:]
    slope = np.polyfit(np.log(np.arange(1, len(amplitude) + 1)), np.log(amplitude + 1e-9), 1)[0]
    assert slope == pytest.approx(-1.5, abs=0.15)


@pytest.mark.parametrize(
    ("clip_type", "partner", "message"),
    [("E", True, "'E'"), ("B", False, "partner"), ("D", True, "second sound")],
)
def test_impossible_scenes_are_refused(clip_type: str, partner: bool, message: str) -> None:
    kinds = named_kinds()
    with pytest.raises(ValueError, match=message):
        compose_scene(
            np.random.default_rng(0),
            named_places()[0],
            kinds[0],
            kinds[1] if partner else None,
            clip_type=clip_type,
        )


def test_clip_types_show_and_sound_what_they_should() -> None:
    kinds, place, rng = named_kinds(), named_places()[0], np.random.default_rng(0)
    expected = {"A": ((0,), (0,)), "B": ((0, 1), (0,)), "C": ((1,), (0,)), "D": ((0, 1), (0, 2))}
    for clip_type, (seen, heard) in expected.items():
        scene = compose_scene(rng, place, kinds[0], kinds[1], kinds[2], clip_type=clip_type)
        assert {s.kind for s in scene.seen} == {kinds[i] for i in seen}
        assert [h.kind for h in scene.heard] == [kinds[i] for i in heard]
