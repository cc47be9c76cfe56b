// swig_callback.i: the callback of an extension with SWIG: a C++ class that Python derives from.
%module(directors="1", threads="1") swig_callback

%feature("director") handler;

%inline %{
#include <cstdint>

struct handler {
  virtual ~handler() = default;
  virtual void call() = 0;
};

inline void call_handler(void* context) { static_cast<handler*>(context)->call(); }

inline long long function_address() { return reinterpret_cast<std::intptr_t>(&call_handler); }
inline long long handler_address(handler* one) { return reinterpret_cast<std::intptr_t>(one); }
%}

%pythoncode %{
_made = []


def make(callable):
    """Give the address of a function that calls back, and the context that it wants."""
    made = type("Handler", (handler,), {"call": staticmethod(callable)})()
    _made.append(made)
    return function_address(), handler_address(made)
%}
