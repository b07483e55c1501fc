"""What is counted, and how it is told."""

from yoloserve.telemetry.metrics import FROM_THE_START


async def test_every_outcome_that_is_watched_is_there_before_the_first_request(serve) -> None:
    """A series that is born with its first number has no rate, and no alert sees it."""
    async with serve() as served:
        told = (await served.client.get("/metrics")).text
        for outcome in FROM_THE_START:
            assert f'yoloserve_requests_total{{outcome="{outcome}",source="request"}} 0.0' in told
