// hazard_threads: native threads that enter Python as most extensions do, and as moored does, for
// the tests of hazards. Each function does one dangerous thing; what it sees goes to stdout.
#include <moored/moored.hpp>

#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <csignal>
#include <functional>
#include <mutex>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#if __has_include(<pybind11/pybind11.h>)
#include <pybind11/pybind11.h>
#define HAS_PYBIND11 true
#else
#define HAS_PYBIND11 false
#endif

namespace {

using namespace std::chrono_literals;

// How long somebody is waited for of whom nothing is expected any more.
constexpr auto long_enough = 1s;
constexpr int exit_code_of_a_hang = 77;

/// Unbuffered, because the process may be about to crash.
void say(std::string line) {
  line += '\n';
  if (write(STDOUT_FILENO, line.data(), line.size()) < 0) _exit(1);
}

/// Asks the three calls that Python code cannot ask.
bool knows_this_thread() {
  return PyGILState_GetThisThreadState() != nullptr;
}

/// Does nothing with the result of a call but to report its exception.
void call(PyObject* callable) {
  PyObject* const result = PyObject_CallNoArgs(callable);
  if (result == nullptr) PyErr_WriteUnraisable(callable);
  Py_XDECREF(result);
}

PyObject* keep_for_ever(PyObject* object) {
  return Py_NewRef(object);  // threads may outlive every owner
}

void enter_and_leave_again() {
  const PyGILState_STATE token = PyGILState_Ensure();
  PyGILState_Release(token);
}

/// Enters Python and runs `inside` there; false when that was refused. The ways: "stock" by a
/// temporary state, "hoarded" by one that is kept and never freed, "pybind11", "moored", "fresh" by
/// moored's temporary state, "both" by pybind11 inside moored.
template <class Inside>
bool enter(std::string_view way, Inside inside) {
  if (way == "moored" || way == "fresh" || way == "both") {
    const auto how = way == "fresh" ? moored::strategy::temporary : moored::strategy::kept;
    const moored::attachment attached = moored::try_attach(how);
    if (!attached) {
      say(std::string("refused: ") + moored::describe(attached.why()));
      return false;
    }
#if HAS_PYBIND11
    if (way == "both") {
      const moored::detachment detached;
      const pybind11::gil_scoped_acquire acquired;
      inside();
      return true;
    }
#endif
    inside();
  } else if (way == "hoarded") {
    thread_local PyThreadState* kept = nullptr;
    if (kept != nullptr) {
      PyEval_RestoreThread(kept);
    } else {
      (void)PyGILState_Ensure();
    }
    inside();
    kept = PyEval_SaveThread();
#if HAS_PYBIND11
  } else if (way == "pybind11") {
    const pybind11::gil_scoped_acquire acquired;
    inside();
#endif
  } else {
    const PyGILState_STATE token = PyGILState_Ensure();
    inside();
    PyGILState_Release(token);
  }
  return true;
}

// --- Threads that come and go

/// crowd(way, callable, threads, times): so many threads at once, each calling so often.
PyObject* crowd(PyObject*, PyObject* arguments) {
  const char* way = nullptr;
  PyObject* callable = nullptr;
  int count = 0, times = 0;
  if (!PyArg_ParseTuple(arguments, "sOii", &way, &callable, &count, &times)) return nullptr;
#if HAS_PYBIND11
  pybind11::detail::get_internals();
#endif
  const moored::detachment detached;
  std::barrier together(count);
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, way = std::string(way)] {
      for (int time = 0; time < times; ++time) enter(way, [&] { call(callable); });
      together.arrive_and_wait();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return keep_for_ever(Py_None);
}

PyObject* state_id(PyObject*, PyObject*) {
  return PyLong_FromUnsignedLongLong(PyThreadState_GetID(PyThreadState_Get()));
}

PyObject* count_states(PyObject*, PyObject*) {
  long count = 0;
  PyThreadState* state = PyInterpreterState_ThreadHead(PyInterpreterState_Main());
  for (; state != nullptr; state = PyThreadState_Next(state)) ++count;
  return PyLong_FromLong(count);
}

PyObject* counters(PyObject*, PyObject*) {
  const moored::counters now = moored::count();
  return Py_BuildValue("{sKsKsKsK}", "made", now.states_made, "kept", now.states_kept, "freed",
                       now.states_freed, "forgotten", now.states_forgotten);
}

/// Enters by PyGILState_Ensure and leaves, on a thread that is inside already.
PyObject* nested(PyObject*, PyObject*) {
  enter_and_leave_again();
  return keep_for_ever(Py_None);
}

// --- The end of the interpreter

std::atomic<bool> was_ended{false};

/// Says that its thread was ended, if the scope is left by unwinding.
struct obituary {
  bool alive = false;
  ~obituary() {
    if (alive) return;
    was_ended = true;
    say("the thread is ended in PyGILState_Ensure");
  }
};

void enter_late(std::string_view way) {
  obituary thread;
  enter(way, [] {
    PyObject* const module = PyImport_ImportModule("colorsys");
    say(module != nullptr ? "enters" : "enters a half torn-down interpreter: import fails");
    if (module == nullptr) PyErr_Clear();
    Py_XDECREF(module);
  });
  thread.alive = true;
}

void enter_late_from_noexcept(std::string_view way) noexcept {
  enter_late(way);
}

void wait_for(std::binary_semaphore& done) {
  if (!done.try_acquire_for(long_enough) && !was_ended)
    say("the thread hangs in PyGILState_Ensure");
}

/// Called while the interpreter is being finalised: a thread enters from a noexcept function.
PyObject* enter_from_noexcept(PyObject*, PyObject* way) {
  static std::binary_semaphore done{0};
  const char* const name = PyUnicode_AsUTF8(way);
  const moored::detachment detached;
  std::thread([name] {
    enter_late_from_noexcept(name);
    done.release();
  }).detach();
  wait_for(done);
  return keep_for_ever(Py_None);
}

/// The same, with a lock held, and joined.
PyObject* enter_and_be_joined(PyObject*, PyObject* way) {
  static std::mutex lock;
  const char* const name = PyUnicode_AsUTF8(way);
  const moored::detachment detached;
  std::thread([name] {
    const std::lock_guard held(lock);
    enter_late(name);
  }).join();
  const std::lock_guard held(lock);
  say("joined");
  return keep_for_ever(Py_None);
}

std::binary_semaphore started{0}, go{0}, went{0};

/// A thread looks whether the interpreter is finalising, and enters when enter_now() says so.
PyObject* look_then_enter(PyObject*, PyObject*) {
  const moored::detachment detached;
  std::thread([] {
    // Py_IsFinalizing(), by the name that it has in this version.
    say(moored::cpython::is_finalizing() ? "finalising" : "Py_IsFinalizing() says no");
    started.release();
    go.acquire();
    enter_late("stock");
    went.release();
  }).detach();
  started.acquire();
  return keep_for_ever(Py_None);
}

PyObject* enter_now(PyObject*, PyObject*) {
  const moored::detachment detached;
  go.release();
  wait_for(went);
  return keep_for_ever(Py_None);
}

/// A thread that moored let in is outside the GIL until shutdown has begun, and calls then.
PyObject* be_inside_when_it_closes(PyObject*, PyObject* callable) {
  keep_for_ever(callable);
  const moored::detachment detached;
  std::thread([callable] {
    const moored::attachment attached = moored::attach();
    {
      const moored::detachment outside;
      started.release();
      go.acquire();
    }
    call(callable);
  }).detach();
  started.acquire();
  std::thread([] {  // is refused as soon as the gate has closed
    while (moored::try_attach()) std::this_thread::yield();
    go.release();
  })
      .detach();
  return keep_for_ever(Py_None);
}

/// A thread that has entered once idles for ever, in the stock way with an interpreter guard.
PyObject* idle_with_guard(PyObject*, PyObject* way) {
  const bool stock = PyUnicode_CompareWithASCIIString(way, "stock") == 0;
  const moored::detachment detached;
  std::thread([stock] {
    const auto idle = [] {
      started.release();
      for (;;) pause();
    };
    if (stock) {
      // PyInterpreterGuard_FromView, where there is one.
      [[maybe_unused]] const moored::cpython::interpreter_guard guard;
      enter("hoarded", [] {});
      idle();
    }
    enter("moored", [] {});
    idle();
  }).detach();
  started.acquire();
  return keep_for_ever(Py_None);
}

// --- Kept states, and whom they belong to

PyThreadState* the_kept = nullptr;
PyInterpreterState* the_interpreter = nullptr;
std::thread the_idle_thread;

/// With PYTHONMALLOC=debug freed memory is overwritten, so that no field of it is right any more.
bool dangles() {
  return PyThreadState_GetInterpreter(the_kept) != the_interpreter;
}

/// A thread keeps a state and idles until the process ends, later than Python.
PyObject* keep_until_exit(PyObject*, PyObject* way) {
  const bool stock = PyUnicode_CompareWithASCIIString(way, "stock") == 0;
  the_interpreter = PyInterpreterState_Main();
  const moored::detachment detached;
  the_idle_thread = std::thread([stock] {
    enter(stock ? "hoarded" : "moored", [] { the_kept = PyThreadState_Get(); });
    started.release();
    go.acquire();
    if (!stock) enter("moored", [] {});
  });
  started.acquire();
  if (stock) {
    std::atexit([] {
      say(dangles() ? "after Py_FinalizeEx the pointer dangles" : "the state outlives Python");
      go.release();
      the_idle_thread.join();
    });
  } else {
    std::atexit([] {
      go.release();
      the_idle_thread.join();
    });
  }
  return keep_for_ever(Py_None);
}

PyObject* kept_state_dangles(PyObject*, PyObject*) {
  return PyBool_FromLong(dangles());
}

/// The child of a fork has no idle thread to join.
PyObject* leave_child(PyObject*, PyObject*) {
  _exit(0);
}

/// This thread frees the state of one that has ended.
PyObject* delete_state_of_ended_thread(PyObject*, PyObject* way) {
  PyThreadState* its = nullptr;
  const bool stock = PyUnicode_CompareWithASCIIString(way, "stock") == 0;
  {
    const moored::detachment detached;
    std::thread([&] {
      const PyGILState_STATE token = PyGILState_Ensure();
      its = PyThreadState_Get();
      if (stock) {
        (void)PyEval_SaveThread();
      } else {
        moored::keep_thread();
        PyGILState_Release(token);
      }
    }).join();
    while (!stock && moored::count().states_freed == 0) std::this_thread::yield();
  }
  if (stock) {
    PyThreadState_Clear(its);
    PyThreadState_Delete(its);
  }
  say(knows_this_thread() ? "this thread is still known to PyGILState"
                          : "PyGILState has lost this thread");
  enter_and_leave_again();
  say("enters again");
  return keep_for_ever(Py_None);
}

/// A thread uses a state that main made.
PyObject* use_state_made_elsewhere(PyObject*, PyObject* way) {
  const bool stock = PyUnicode_CompareWithASCIIString(way, "stock") == 0;
  PyThreadState* const made = stock ? PyThreadState_New(PyInterpreterState_Main()) : nullptr;
  const moored::detachment detached;
  std::thread([&] {
    const auto look = [] {
      say(knows_this_thread() ? "PyGILState knows the state" : "PyGILState does not know it");
      enter_and_leave_again();
      say("enters again");
    };
    if (!stock) {
      enter("moored", look);
      return;
    }
    PyEval_RestoreThread(made);
    look();
    PyThreadState_Clear(made);
    PyThreadState_DeleteCurrent();
  }).join();
  return keep_for_ever(Py_None);
}

PyObject* release_elsewhere(PyObject*, PyObject* way) {
  const bool stock = PyUnicode_CompareWithASCIIString(way, "stock") == 0;
  const moored::detachment detached;
  if (stock) {
    PyGILState_STATE token{};
    std::thread([&] {
      token = PyGILState_Ensure();
      (void)PyEval_SaveThread();
    }).join();
    std::thread([&] { PyGILState_Release(token); }).join();
    return keep_for_ever(Py_None);
  }
  std::thread([] {
    try {
      const moored::attachment attached = moored::attach();
      throw std::runtime_error("by the test");
    } catch (const std::runtime_error&) {
    }
    say(PyGILState_Check() == 0 ? "an exception ends the attachment on its thread" : "attached");
    enter("moored", [] { say("enters again"); });
  }).join();
  return keep_for_ever(Py_None);
}

/// With the GIL held by this thread, a thread that has no state is asked whether it is attached.
PyObject* ask_a_stranger(PyObject*, PyObject* question) {
  const std::string asked = PyUnicode_AsUTF8(question);
  std::thread([&asked] {
    if (asked == "unchecked_get") {
      // _PyThreadState_UncheckedGet(), by the name that it has in this version.
      say(moored::cpython::current() != nullptr ? "shows the state of another thread"
                                                : "shows no state");
    } else if (asked == "check") {
      say(PyGILState_Check() != 0 ? "PyGILState_Check() says that a stranger is attached"
                                  : "PyGILState_Check() says that a stranger is not attached");
    } else {
      say(moored::cpython::is_attached(nullptr) ? "thinks that it is attached"
                                                : "knows that it is not attached");
    }
  }).join();
  return keep_for_ever(Py_None);
}

PyObject* have_a_subinterpreter(PyObject*, PyObject*) {
  PyThreadState* const me = PyThreadState_Get();
  PyThreadState* const sub = Py_NewInterpreter();
  if (sub != nullptr) Py_EndInterpreter(sub);
  PyThreadState_Swap(me);
  return keep_for_ever(Py_None);
}

/// leave_an_error(way): two visits; the first one leaves an exception set.
PyObject* leave_an_error(PyObject*, PyObject* way) {
  const char* const name = PyUnicode_AsUTF8(way);
  const moored::detachment detached;
  std::thread([name] {
    enter(name, [] { PyErr_SetString(PyExc_ValueError, "by the test"); });
    enter(name, [] {
      say(PyErr_Occurred() != nullptr ? "an exception left set is met by the next call"
                                      : "an exception left set is lost");
      PyErr_Clear();
    });
  }).join();
  return keep_for_ever(Py_None);
}

PyObject* in_main_interpreter(PyObject*, PyObject*) {
  return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

/// Two living threads use one state, each in turn, the second one calls.
PyObject* call_on_second_user(PyObject*, PyObject* callable) {
  PyThreadState* const shared = PyThreadState_New(PyInterpreterState_Main());
  const moored::detachment detached;
  std::thread first([&] {
    PyEval_RestoreThread(shared);
    (void)PyEval_SaveThread();
    started.release();
    go.acquire();
  });
  started.acquire();
  std::thread([&] {
    PyEval_RestoreThread(shared);
    call(callable);
    (void)PyEval_SaveThread();
  }).join();
  go.release();
  first.join();
  return keep_for_ever(Py_None);
}

// --- The end of a thread

void release_kept(void* state) {
  PyEval_RestoreThread(static_cast<PyThreadState*>(state));
  PyGILState_Release(PyGILState_UNLOCKED);
}

/// A thread's state is freed by the destructor of a pthread key.
PyObject* free_by_key(PyObject*, PyObject* way) {
  const bool stock = PyUnicode_CompareWithASCIIString(way, "stock") == 0;
  pthread_key_t key{};
  if (pthread_key_create(&key, release_kept) != 0) return PyErr_NoMemory();
  const moored::detachment detached;
  std::thread([&] {
    if (!stock) {
      enter("moored", [] {});
      return;
    }
    (void)PyGILState_Ensure();
    pthread_setspecific(key, PyEval_SaveThread());
  }).join();
  return keep_for_ever(Py_None);
}

struct frees_in_destructor {
  PyThreadState* state = nullptr;
  ~frees_in_destructor() {
    if (state != nullptr) release_kept(state);
  }
};

/// A thread that keeps a state ends when end_now() says so.
PyObject* keep_and_wait(PyObject*, PyObject* way) {
  const bool stock = PyUnicode_CompareWithASCIIString(way, "stock") == 0;
  const moored::detachment detached;
  the_idle_thread = std::thread([stock] {
    thread_local frees_in_destructor mine;
    if (stock) {
      (void)PyGILState_Ensure();
      mine.state = PyEval_SaveThread();
    } else {
      enter("moored", [] {});
    }
    started.release();
    go.acquire();
  });
  started.acquire();
  return keep_for_ever(Py_None);
}

PyObject* end_now(PyObject*, PyObject*) {
  const moored::detachment detached;
  go.release();
  the_idle_thread.join();
  say("joined");
  return keep_for_ever(Py_None);
}

/// A thread idles, in the stock way attached; returns when it does.
PyObject* idle(PyObject*, PyObject* way) {
  const bool stock = PyUnicode_CompareWithASCIIString(way, "stock") == 0;
  const moored::detachment detached;
  std::thread([stock] {
    if (stock) {
      (void)PyGILState_Ensure();
    } else {
      enter("moored", [] {});
      say(PyGILState_Check() == 0 ? "idles detached" : "idles attached");
    }
    started.release();
    for (;;) pause();
  }).detach();
  started.acquire();
  return keep_for_ever(Py_None);
}

// --- Locks

std::timed_mutex registry;

/// A thread locks, then enters; this thread, with the GIL held, wants the lock.
PyObject* lock_with_gil_held(PyObject*, PyObject*) {
  std::thread thread([] {
    const std::lock_guard held(registry);
    started.release();
    enter_and_leave_again();
  });
  started.acquire();
  const std::lock_guard held(registry);
  thread.detach();
  return keep_for_ever(Py_None);
}

/// Threads wait for the GIL in moored; this thread holds it and calls all of moored.
PyObject* call_moored_with_gil_held(PyObject*, PyObject*) {
  constexpr std::uint64_t count = 4;
  const std::uint64_t before = moored::count().attaches;
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < count; ++i) {
    threads.emplace_back([] {
      enter("moored", [] {});
      moored::keep_thread();
      moored::release_thread();
    });
  }
  while (moored::count().attaches < before + count) std::this_thread::yield();
  if (!moored::open()) return nullptr;
  (void)moored::install();
  moored::set_closing_bound(5s);
  (void)moored::keep_thread();
  { const moored::attachment attached = moored::try_attach(); }
  moored::release_thread();
  {
    const moored::detachment detached;
    for (std::thread& thread : threads) thread.join();
  }
  return keep_for_ever(Py_None);
}

/// A thread keeps a state and holds a lock, for ever.
PyObject* hold_a_lock(PyObject*, PyObject* way) {
  const bool stock = PyUnicode_CompareWithASCIIString(way, "stock") == 0;
  the_interpreter = PyInterpreterState_Main();
  const moored::detachment detached;
  std::thread([stock] {
    enter(stock ? "hoarded" : "moored", [] { the_kept = PyThreadState_Get(); });
    const std::lock_guard held(registry);
    started.release();
    for (;;) pause();
  }).detach();
  started.acquire();
  return keep_for_ever(Py_None);
}

PyObject* can_lock(PyObject*, PyObject*) {
  const moored::detachment detached;
  const bool locked = registry.try_lock_for(long_enough);
  if (locked) registry.unlock();
  return PyBool_FromLong(locked);
}

// --- Arena allocators

PyObjectArenaAllocator below{};
std::atomic<long> chunks_made{0}, chunks_freed{0};
PyObject* counter_in_python = nullptr;

void* count_allocation(void*, std::size_t size) {
  if (size == moored::cpython::data_stack_chunk_bytes) ++chunks_made;
  return below.alloc(below.ctx, size);
}

void count_free(void*, void* block, std::size_t size) {
  if (size == moored::cpython::data_stack_chunk_bytes) ++chunks_freed;
  below.free(below.ctx, block, size);
}

PyObject* count_chunks(PyObject*, PyObject*) {
  PyObject_GetArenaAllocator(&below);
  PyObjectArenaAllocator counting{below.ctx, count_allocation, count_free};
  PyObject_SetArenaAllocator(&counting);
  return keep_for_ever(Py_None);
}

PyObject* chunks(PyObject*, PyObject*) {
  return Py_BuildValue("ll", chunks_made.load(), chunks_made.load() - chunks_freed.load());
}

void* allocate_and_call_python(void*, std::size_t size) {
  call(counter_in_python);
  return below.alloc(below.ctx, size);
}

/// An arena allocator that tells Python of each allocation.
PyObject* call_python_at_each_arena(PyObject*, PyObject* callable) {
  counter_in_python = keep_for_ever(callable);
  PyObject_GetArenaAllocator(&below);
  PyObjectArenaAllocator telling{below.ctx, allocate_and_call_python, below.free};
  PyObject_SetArenaAllocator(&telling);
  return keep_for_ever(Py_None);
}

PyObject* install(PyObject*, PyObject*) {
  return PyBool_FromLong(moored::install() != moored::cache_status::nothing_to_gain);
}

PyObject* cache_hits(PyObject*, PyObject*) {
  return PyLong_FromUnsignedLongLong(moored::count_chunks().hits);
}

// --- Built and bound

template <class State>
std::string fields_of(const State*) {
  std::string text = "gilstate_counter is at byte " +
                     std::to_string(offsetof(State, gilstate_counter)) + " of PyThreadState";
  if constexpr (requires(State state) { state._status; }) return text + ", _status exists";
  return text + ", _status does not exist";
}

PyObject* private_fields(PyObject*, PyObject*) {
  const std::string text = fields_of(static_cast<PyThreadState*>(nullptr));
  return PyUnicode_FromString(text.c_str());
}

/// Writes into this extension's own reference to PyGILState_Ensure, as a simple hook would.
PyObject* patch_own_reference(PyObject*, PyObject*) {
  Dl_info where{};
  dladdr(reinterpret_cast<void*>(&patch_own_reference), &where);
  const auto* const map = static_cast<const link_map*>(dlopen(where.dli_fname, RTLD_LAZY));
  const ElfW(Sym)* symbols = nullptr;
  const char* names = nullptr;
  const ElfW(Rela)* references = nullptr;
  std::size_t bytes = 0;
  for (const ElfW(Dyn)* entry = map->l_ld; entry->d_tag != DT_NULL; ++entry) {
    if (entry->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const ElfW(Sym)*>(entry->d_un.d_ptr);
    if (entry->d_tag == DT_STRTAB) names = reinterpret_cast<const char*>(entry->d_un.d_ptr);
    if (entry->d_tag == DT_RELA)
      references = reinterpret_cast<const ElfW(Rela)*>(entry->d_un.d_ptr);
    if (entry->d_tag == DT_RELASZ) bytes = entry->d_un.d_val;
  }
  for (std::size_t i = 0; i < bytes / sizeof *references; ++i) {
    const char* const name = names + symbols[ELF64_R_SYM(references[i].r_info)].st_name;
    if (name != std::string_view("PyGILState_Ensure")) continue;
    say("its slot is found");
    auto* const slot = reinterpret_cast<void* volatile*>(map->l_addr + references[i].r_offset);
    *slot = *slot;
    say("its slot is written");
  }
  return keep_for_ever(Py_None);
}

// --- The process

/// Ends the process when it takes longer: somebody hangs.
PyObject* hang_after(PyObject*, PyObject* seconds) {
  const std::chrono::seconds limit(PyLong_AsLong(seconds));
  std::thread([limit] {
    std::this_thread::sleep_for(limit);
    _exit(exit_code_of_a_hang);
  }).detach();
  return keep_for_ever(Py_None);
}

PyObject* say_in_python(PyObject*, PyObject* line) {
  say(PyUnicode_AsUTF8(line));
  return keep_for_ever(Py_None);
}

PyMethodDef methods[] = {
    {"ask_a_stranger", ask_a_stranger, METH_O, nullptr},
    {"be_inside_when_it_closes", be_inside_when_it_closes, METH_O, nullptr},
    {"cache_hits", cache_hits, METH_NOARGS, nullptr},
    {"call_moored_with_gil_held", call_moored_with_gil_held, METH_NOARGS, nullptr},
    {"call_on_second_user", call_on_second_user, METH_O, nullptr},
    {"call_python_at_each_arena", call_python_at_each_arena, METH_O, nullptr},
    {"can_lock", can_lock, METH_NOARGS, nullptr},
    {"chunks", chunks, METH_NOARGS, nullptr},
    {"count_chunks", count_chunks, METH_NOARGS, nullptr},
    {"count_states", count_states, METH_NOARGS, nullptr},
    {"counters", counters, METH_NOARGS, nullptr},
    {"crowd", crowd, METH_VARARGS, nullptr},
    {"delete_state_of_ended_thread", delete_state_of_ended_thread, METH_O, nullptr},
    {"end_now", end_now, METH_NOARGS, nullptr},
    {"enter_and_be_joined", enter_and_be_joined, METH_O, nullptr},
    {"enter_from_noexcept", enter_from_noexcept, METH_O, nullptr},
    {"enter_now", enter_now, METH_NOARGS, nullptr},
    {"free_by_key", free_by_key, METH_O, nullptr},
    {"hang_after", hang_after, METH_O, nullptr},
    {"have_a_subinterpreter", have_a_subinterpreter, METH_NOARGS, nullptr},
    {"hold_a_lock", hold_a_lock, METH_O, nullptr},
    {"idle", idle, METH_O, nullptr},
    {"idle_with_guard", idle_with_guard, METH_O, nullptr},
    {"in_main_interpreter", in_main_interpreter, METH_NOARGS, nullptr},
    {"install", install, METH_NOARGS, nullptr},
    {"keep_and_wait", keep_and_wait, METH_O, nullptr},
    {"keep_until_exit", keep_until_exit, METH_O, nullptr},
    {"kept_state_dangles", kept_state_dangles, METH_NOARGS, nullptr},
    {"leave_child", leave_child, METH_NOARGS, nullptr},
    {"leave_an_error", leave_an_error, METH_O, nullptr},
    {"lock_with_gil_held", lock_with_gil_held, METH_NOARGS, nullptr},
    {"look_then_enter", look_then_enter, METH_NOARGS, nullptr},
    {"nested", nested, METH_NOARGS, nullptr},
    {"patch_own_reference", patch_own_reference, METH_NOARGS, nullptr},
    {"private_fields", private_fields, METH_NOARGS, nullptr},
    {"release_elsewhere", release_elsewhere, METH_O, nullptr},
    {"say", say_in_python, METH_O, nullptr},
    {"state_id", state_id, METH_NOARGS, nullptr},
    {"use_state_made_elsewhere", use_state_made_elsewhere, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "hazard_threads",
    .m_doc = nullptr,
    .m_size = -1,
    .m_methods = methods,
    .m_slots = nullptr,
    .m_traverse = nullptr,
    .m_clear = nullptr,
    .m_free = nullptr,
};

}  // namespace

PyMODINIT_FUNC PyInit_hazard_threads() {
  PyObject* const module = PyModule_Create(&definition);
  if (module == nullptr) return nullptr;
  if (PyModule_AddObject(module, "has_pybind11", PyBool_FromLong(HAS_PYBIND11)) != 0 ||
      !moored::open())
    return nullptr;
  return module;
}
