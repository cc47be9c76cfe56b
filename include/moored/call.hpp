// moored/call.hpp: calls from native threads that want an answer: a function's, or a coroutine's.
#pragma once

#include <Python.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "attach.hpp"
#include "converter.hpp"
#include "detail/channel/registry.hpp"
#include "python_error.hpp"
#include "reference.hpp"

MOORED_NAMESPACE_BEGIN

/// Thrown by await() when the time was over; the coroutine has been cancelled.
class timed_out : public std::runtime_error {
 public:
  timed_out() : std::runtime_error("the coroutine took longer than it was given") {}
};

namespace detail {

/// The result of callable(*arguments). Attached.
template <class... Arguments>
[[nodiscard]] reference call_attached(PyObject* callable, Arguments&&... arguments) {
  const auto tuple = reference::steal(PyTuple_New(sizeof...(arguments)));
  if (!tuple) throw python_error::current();
  [[maybe_unused]] Py_ssize_t at = 0;
  [[maybe_unused]] const auto add = [&](PyObject* object) {
    if (object == nullptr) throw python_error::current();
    PyTuple_SET_ITEM(tuple.get(), at++, object);
  };
  (add(converter<std::decay_t<Arguments>>::to_python(
       std::decay_t<Arguments>(std::forward<Arguments>(arguments)))),
   ...);
  auto result = reference::steal(PyObject_CallObject(callable, tuple.get()));
  if (!result) throw python_error::current();
  return result;
}

template <class Result>
[[nodiscard]] Result converted([[maybe_unused]] const reference& result) {
  if constexpr (!std::is_void_v<Result>) return converter<Result>::from_python(result.get());
}

/// Set by a future's callback; waited for without the GIL and outside the gate, so that shutdown
/// does not wait for the thread that waits here.
class answer final : public waits_for_python {
 public:
  enum class state : std::uint8_t { none, there, python_ended };

  void set(state now) noexcept {
    {
      const std::lock_guard lock(mutex_);
      if (state_ == state::none) state_ = now;
    }
    changed_.notify_all();
  }
  void python_ends() noexcept override { set(state::python_ended); }

  [[nodiscard]] state wait(std::chrono::nanoseconds limit) {
    constexpr int most = 1000;  // of waits that end for nothing: the clock stands still
    std::unique_lock lock(mutex_);
    const deadline due(limit);
    for (int vain = 0; vain < most && state_ == state::none && !due.over(); ++vain) {
      const auto rest = due.rest().value_or(std::chrono::hours(1));
      if (changed_.wait_for(lock, rest) == std::cv_status::timeout) vain = 0;
    }
    return state_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  state state_ = state::none;
};

inline constexpr const char* answer_name = "moored.answer";

inline PyObject* answer_is_there(PyObject* capsule, PyObject*) noexcept {
  auto* const held =
      static_cast<std::shared_ptr<answer>*>(PyCapsule_GetPointer(capsule, answer_name));
  if (held == nullptr) return nullptr;
  (*held)->set(answer::state::there);
  Py_RETURN_NONE;
}

/// Has the future tell `to` when it is done. Attached.
inline void tell_when_done(PyObject* future, const std::shared_ptr<answer>& to) {
  static PyMethodDef method = {"moored_answer", answer_is_there, METH_O, nullptr};
  auto held = std::make_unique<std::shared_ptr<answer>>(to);
  const auto capsule = reference::steal(PyCapsule_New(held.get(), answer_name, [](PyObject* mine) {
    delete static_cast<std::shared_ptr<answer>*>(PyCapsule_GetPointer(mine, answer_name));
  }));
  if (!capsule) throw python_error::current();
  (void)held.release();
  const auto callback = reference::steal(PyCFunction_New(&method, capsule.get()));
  const auto done = reference::steal(
      callback ? PyObject_CallMethod(future, "add_done_callback", "O", callback.get()) : nullptr);
  if (!done) throw python_error::current();
}

}  // namespace detail

/// Calls a Python callable from any thread, attached or not, and gives its result. The thread
/// enters the interpreter of the callable.
///
/// Arguments and result are converted by converter<>; Result void drops the result, `reference`
/// keeps the object. Throws python_error with the traceback's text, and interpreter_closed.
template <class Result = void, class... Arguments>
inline Result call(const reference& callable, Arguments&&... arguments) {
  const attachment attached = callable.attach();
  return detail::converted<Result>(
      detail::call_attached(callable.get(), std::forward<Arguments>(arguments)...));
}

/// Runs function(*arguments), a coroutine, on an asyncio loop that runs in another thread, and
/// waits for its result, at most for `limit`. Any thread but the loop's own; lets go of the GIL
/// while it waits.
///
/// Throws timed_out, after it has asked for the coroutine to be cancelled; python_error, also for a
/// cancelled one; and interpreter_closed, also when Python ends meanwhile.
template <class Result = void, class... Arguments>
inline Result await(const reference& loop, const reference& function,
                    std::chrono::nanoseconds limit, Arguments&&... arguments) {
  const auto there = std::make_shared<detail::answer>();
  reference future;
  {
    const attachment attached = function.attach();
    detail::channel_registry& registry = detail::channel_registry::the();
    registry.meet_python();
    if (!registry.add(there)) throw interpreter_closed(refusal::closing);
    const auto asyncio = reference::steal(PyImport_ImportModule("asyncio"));
    if (!asyncio) throw python_error::current();
    const auto running =
        reference::steal(PyObject_CallMethod(asyncio.get(), "_get_running_loop", nullptr));
    if (!running) throw python_error::current();
    if (running.get() == loop.get())
      throw std::logic_error("await() on the loop's own thread would wait for itself");
    reference coroutine =
        detail::call_attached(function.get(), std::forward<Arguments>(arguments)...);
    future = reference::steal(PyObject_CallMethod(asyncio.get(), "run_coroutine_threadsafe", "OO",
                                                  coroutine.get(), loop.get()));
    if (!future) throw python_error::current();
    detail::tell_when_done(future.get(), there);
  }
  detail::answer::state came{};
  {
    const detachment others_turn;
    came = there->wait(limit);
  }
  if (came == detail::answer::state::python_ended) throw interpreter_closed(refusal::closing);
  const attachment attached = future.attach();
  if (came == detail::answer::state::none) {
    const auto cancelled = reference::steal(PyObject_CallMethod(future.get(), "cancel", nullptr));
    if (!cancelled) PyErr_Clear();
    future = {};
    throw timed_out();
  }
  const reference done = std::move(future);
  const auto result = reference::steal(PyObject_CallMethod(done.get(), "result", nullptr));
  if (!result) throw python_error::current();
  return detail::converted<Result>(result);
}

MOORED_NAMESPACE_END
