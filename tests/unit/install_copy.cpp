// chunk_cache_copy: an extension that carries a chunk cache of its own, for chunk_cache_test.cpp.
#include <moored/install.hpp>

extern "C" {

[[gnu::visibility("default")]] int copy_install() {
  return static_cast<int>(moored::install());
}

[[gnu::visibility("default")]] unsigned long long copy_hits() {
  return moored::stats_of_chunks().hits;
}

}  // extern "C"
