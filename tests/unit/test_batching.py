"""The coalescer: one call in flight; items that arrive meanwhile go with the next one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence

import pytest

from raygrid.errors import BusyError, UnavailableError
from raygrid.transport.batching import Coalescer


class Far:
    """The other side of an edge: it keeps every call open until the test lets it answer."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._answers: asyncio.Queue[BaseException | None] = asyncio.Queue()
        self._called = asyncio.Condition()

    async def send(self, items: Sequence[int]) -> Sequence[int]:
        self.calls.append(list(items))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        async with self._called:
            self._called.notify_all()
        await asyncio.sleep(0)  # a real call always lets others run
        try:
            error = await self._answers.get()
        finally:
            self.in_flight -= 1
        if error is not None:
            raise error
        return [item * 10 for item in items]

    def answer(self, error: BaseException | None = None) -> None:
        self._answers.put_nowait(error)

    async def called(self, times: int) -> None:
        async with self._called:
            async with asyncio.timeout(30):
                await self._called.wait_for(lambda: len(self.calls) >= times)


async def test_an_idle_edge_sends_at_once() -> None:
    """A single item goes out alone and gets its own answer."""
    far = Far()
    far.answer()
    assert await Coalescer(far.send).put(4) == 40
    assert far.calls == [[4]]


async def test_items_that_arrive_meanwhile_go_with_the_next_call_in_order() -> None:
    """While a call is in flight items gather; the next call takes them all, in order of arrival."""
    far = Far()
    edge = Coalescer(far.send)
    first = edge.put_all([1])
    await far.called(1)
    others = edge.put_all([2]) + edge.put_all([3, 4]) + edge.put_all([5])
    far.answer()
    assert await first[0] == 10
    await far.called(2)
    far.answer()
    assert await asyncio.gather(*others) == [20, 30, 40, 50]
    assert far.calls == [[1], [2, 3, 4, 5]]
    assert far.most_in_flight == 1


async def test_at_most_one_call_is_in_flight() -> None:
    """However many callers there are, the far side sees one call at a time and every item once."""
    far = Far()
    edge = Coalescer(far.send, max_batch=7)
    for _ in range(200):
        far.answer()
    answers = await asyncio.gather(*(edge.put(item) for item in range(200)))
    assert answers == [item * 10 for item in range(200)]
    assert far.most_in_flight == 1
    assert [item for call in far.calls for item in call] == list(range(200))
    assert max(len(call) for call in far.calls) == 7


async def test_an_error_goes_to_all_callers_of_its_batch_and_to_no_other() -> None:
    """Each caller of the failed call sees its error; the next call starts fresh."""
    far = Far()
    edge = Coalescer(far.send, max_batch=2)
    failing, next_one = edge.put_all([1, 2]), edge.put_all([3])
    far.answer(ConnectionError("gone"))
    far.answer()
    assert [str(error) for error in await asyncio.gather(*failing, return_exceptions=True)] == [
        "gone",
        "gone",
    ]
    assert await next_one[0] == 30


async def test_an_error_without_a_waiting_caller_is_not_reported() -> None:
    """A caller that does not look at its future causes no warning."""
    loop, errors = asyncio.get_running_loop(), list[object]()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    far = Far()
    edge = Coalescer(far.send)
    edge.put_all([1])
    far.answer(ConnectionError("gone"))
    await edge.close()
    gc.collect()  # a future logs its unread error when it is collected
    assert errors == []


async def test_too_few_answers_are_an_error_of_the_batch() -> None:
    """If the number of answers differs from the number of items, none of them is used."""

    async def send(items: Sequence[int]) -> Sequence[int]:
        return items[1:]

    with pytest.raises(RuntimeError, match="edge: 0 answers to 1 items"):
        await Coalescer(send, name="edge").put(1)


async def test_a_cancelled_caller_leaves_its_item_in_the_batch() -> None:
    """What was accepted is carried out, and the others get their own answers."""
    far = Far()
    edge = Coalescer(far.send)
    blocker = edge.put_all([0])
    await far.called(1)
    impatient, patient = asyncio.create_task(edge.put(1)), asyncio.create_task(edge.put(2))
    await asyncio.wait([impatient, patient], timeout=0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    far.answer()
    far.answer()
    assert await patient == 20
    assert await blocker[0] == 0
    assert far.calls == [[0], [1, 2]]


async def test_a_cancelled_future_does_not_disturb_its_batch() -> None:
    """A caller that cancels its future takes no answer away from the others."""
    far = Far()
    dropped, kept = Coalescer(far.send).put_all([1, 2])
    dropped.cancel()
    far.answer()
    assert await kept == 20


async def test_closing_carries_out_what_waits() -> None:
    """Items accepted before the close are sent, items after it are refused."""
    far = Far()
    edge = Coalescer(far.send, max_batch=1, name="edge")
    accepted = edge.put_all([1, 2])
    closing = asyncio.create_task(edge.close())
    await far.called(1)
    assert not closing.done()
    with pytest.raises(UnavailableError, match=r"edge is closed.*try again"):
        edge.put_all([3])
    far.answer()
    far.answer()
    await closing
    assert [future.result() for future in accepted] == [10, 20]
    assert far.calls == [[1], [2]]


async def test_closing_an_idle_edge_takes_no_time_and_may_be_repeated() -> None:
    """Nothing waits, so nothing is sent."""
    far = Far()
    edge = Coalescer(far.send)
    await edge.close()
    await edge.close()
    assert far.calls == []


async def test_a_full_edge_refuses_all_of_a_call_and_keeps_what_it_has() -> None:
    """Over the limit nothing of the call is accepted; room comes back when the waiting ones are sent."""
    far = Far()
    edge = Coalescer(far.send, max_waiting=2, name="edge")
    first = edge.put_all([1])
    await far.called(1)
    waiting = edge.put_all([2])
    with pytest.raises(BusyError, match="edge is full: 1 items wait"):
        edge.put_all([3, 4])
    waiting += edge.put_all([5])
    far.answer()
    await far.called(2)
    later = edge.put_all([6, 7])
    far.answer()
    far.answer()
    assert await asyncio.gather(*first, *waiting, *later) == [10, 20, 50, 60, 70]
    assert far.calls == [[1], [2, 5], [6, 7]]


async def test_no_items_make_no_call() -> None:
    """No items, no call."""
    far = Far()
    edge = Coalescer(far.send)
    assert edge.put_all([]) == []
    await edge.close()
    assert far.calls == []


async def test_a_call_that_is_cancelled_on_the_far_side_leaves_no_caller_waiting() -> None:
    """If the sending is cancelled, every waiting caller gets an error and the next batch is sent."""
    far = Far()
    edge = Coalescer(far.send, max_batch=1, name="edge")
    lost = edge.put_all([1, 2])
    far.answer(asyncio.CancelledError())
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*lost, return_exceptions=True)
    assert [type(answer) for answer in answers] == [UnavailableError, UnavailableError]
    assert "edge was stopped" in str(answers[0])
    far.answer()
    assert await edge.put(3) == 30
