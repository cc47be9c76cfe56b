// moored/moored.hpp: everything, in reading order.
#pragma once

#include "attach.hpp"       // attachment, try_attach, attach, detachment, keep_thread
#include "call.hpp"         // answers from functions and coroutines, as C++ values and exceptions
#include "channel.hpp"      // native events to Python, in batches, without the GIL
#include "chunk_cache.hpp"  // install: temporary states made cheap, for every binding
#include "cpython.hpp"      // what differs between Python versions
#include "guest_state.hpp"  // the side state and the borrowed state
#include "interpreter.hpp"  // the closing gate, and what is counted
#include "kept_limit.hpp"   // which threads keep a state, and the longest idle of them
#include "kept_state.hpp"   // a thread state that stays with its thread
#include "promise.hpp"      // futures completed by native threads, without the GIL
#include "subinterpreter.hpp"  // which interpreter a thread enters
#include "version.hpp"         // the version number
