"""What the embedded model decodes for a request does not depend on the requests beside it: 64 of 64.

Requests of four tasks, many lengths, greedy and sampled, with and without guidance, arrive a few at a time and share
passes of an engine; each is held against the same request decoded alone, id by id.
"""

import dynin
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.engine import Engine, EngineJob, Limits
from dynin.pipeline.denoiser import TransformerDenoiser
from dynin.pipeline.job import Work
from dynin.pipeline.mixed import MixedDenoiser
from dynin.pipeline.request import Request
from dynin.testing import small_picture

NUM_REQUESTS = 64
OBJECTS = ("dog", "cat", "star", "red apple", "tree", "bus", "rocket", "penguin")


def request(number: int) -> Request:
    """One of several kinds, with its own words, seed and number of steps."""
    thing, other = OBJECTS[number % 8], OBJECTS[number // 8]
    steps = 1 + number % 3
    if number % 4 == 0:
        return Request(prompt=f"a {thing} above a {other}", to="image", seed=number, steps=steps, preset="exact")
    if number % 4 == 1:
        sum_of = " + ".join(str(part) for part in range(2, 3 + number % 5))
        return Request(prompt=f"What is {sum_of}?", to="text", seed=number, steps=steps, preset="exact")
    if number % 4 == 2:
        question = f"Is there a {thing} or a {other} in the picture?"
        return Request(prompt=question, image=small_picture(), to="text", seed=number, steps=steps, preset="exact")
    return Request(prompt=f"a {thing}", to="speech", seed=number, steps=1, preset="exact")


def test_64_of_64_requests_come_out_as_they_do_alone() -> None:
    model = dynin.load()
    easel = model.easel()
    mask_id = model.vocabulary["mask"]
    works: list[Work] = [easel.lay([model.prepare(request(number))]) for number in range(NUM_REQUESTS)]
    engine = Engine(MixedDenoiser(model.model), mask_id, Limits(max_columns=1600, max_running=12))
    together = {}
    arriving = list(enumerate(works))
    while arriving or not engine.is_idle:
        for number, work in arriving[:3]:
            job = EngineJob(canvas=work.canvas, segments=work.segments, generator=work.generators)
            assert engine.submit(job) == number
        del arriving[:3]
        together |= {number: engine.poll(number) for number in engine.step()}
    alone = ParallelDecoder(TransformerDenoiser(model.model), mask_id)
    different = []
    for number in range(NUM_REQUESTS):
        again = easel.lay([model.prepare(request(number))])
        result = alone.run(again.canvas, again.segments, generator=again.generators)
        assert together[number].decoded.num_forwards == result.num_forwards
        if together[number].decoded.ids.tolist() != result.ids.tolist():
            different.append(number)
    assert different == []
