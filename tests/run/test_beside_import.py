"""`import moored` in a program of `moored run`: both know of the same states."""

from __future__ import annotations


def test_stats_know_what_moored_run_keeps(kept):
    ending = kept("""
        import moored
        caller.free.call_on_threads(CALLBACK(visit), 3, 5)
        stats = moored.stats()
        assert stats["states_adopted"] == 3, stats
        caller.free.call_on_a_thread(
            CALLBACK(lambda: visits.append(moored.stats()["states_kept"])), 1
        )
        assert visits[-1] >= 1
    """)
    assert (ending.code, ending.err) == (0, "")


def test_stats_count_a_state_once(kept):
    ending = kept("""
        import moored
        @moored.keeps_thread
        def callback():
            visit()
            assert moored.keep_thread()
        caller.free.call_on_a_thread(CALLBACK(callback), 5)
        assert visits == [1, 2, 3, 4, 5], visits
        assert moored.stats()["states_adopted"] == 1, moored.stats()
    """)
    assert (ending.code, ending.err) == (0, "")


def test_release_thread_lets_go_of_what_moored_run_keeps(kept):
    ending = kept("""
        import moored
        def callback():
            visit()
            if visits[-1] == 2:
                moored.release_thread()
        caller.free.call_on_a_thread(CALLBACK(callback), 6)
        print(visits, moored.stats()["states_freed"] >= 2)
    """)
    assert (ending.code, ending.out, ending.err) == (0, "[1, 2, 1, 2, 1, 2] True\n", "")


def test_release_thread_on_pythons_own_thread_does_nothing(kept):
    ending = kept("""
        import moored
        moored.release_thread()
        thread = threading.Thread(target=lambda: (moored.release_thread(), visit()))
        thread.start()
        thread.join()
        print(visits, moored.stats()["states_freed"])
    """)
    assert (ending.code, ending.out, ending.err) == (0, "[1] 0\n", "")
