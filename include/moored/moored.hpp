// moored/moored.hpp: the contents page; everything, in reading order.
#pragma once

#include "attach.hpp"        // attachment, try_attach, attach, detachment, keep_thread
#include "call.hpp"          // answers from functions and coroutines, as C++ values and exceptions
#include "channel.hpp"       // native events to Python, in batches, without the GIL
#include "converter.hpp"     // C++ values that become Python objects
#include "delivery.hpp"      // the words of a channel: how events reach Python, what is counted
#include "install.hpp"       // temporary states made cheap, for every binding
#include "interpreter.hpp"   // which interpreter; the gate that shutdown closes
#include "promise.hpp"       // futures completed by native threads, without the GIL
#include "python_error.hpp"  // a Python exception as a C++ exception
#include "reference.hpp"     // a reference that any thread may let go
#include "urgent.hpp"        // attaches that get the GIL from a busy thread in microseconds
#include "version.hpp"       // the version number
