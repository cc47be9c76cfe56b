// lab/native/server/http_parser.hpp: llhttp behind one call: bytes in, whole requests out, within
// limits.
#pragma once

#include <llhttp.h>

#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace moored::lab {

struct parsed_request {
  std::string method;
  std::string path;
  bool keep_alive = true;
};

class http_parser {
 public:
  static constexpr std::size_t most_path = 8 * 1024;
  static constexpr std::size_t most_headers = 64 * 1024;
  static constexpr std::size_t most_body = 1024 * 1024;

  using on_request = std::function<void(parsed_request)>;

  http_parser();
  http_parser(const http_parser&) = delete;
  http_parser& operator=(const http_parser&) = delete;

  // Calls `done` for each request that these bytes complete. Returns 0, or the status with which to
  // reject what follows; the parser must not be fed again then.
  [[nodiscard]] int feed(std::span<const char> bytes, const on_request& done);

 private:
  [[nodiscard]] static http_parser& of(llhttp_t* parser) noexcept;
  [[nodiscard]] static const llhttp_settings_t& settings() noexcept;
  [[nodiscard]] int within(std::size_t& size, std::size_t more, std::size_t most,
                           int status) noexcept;
  void finish_request();

  llhttp_t parser_;
  const on_request* done_ = nullptr;
  std::string path_;
  std::size_t headers_ = 0;
  std::size_t body_ = 0;  // its size: the lab's handler has no use for the bytes
  int status_ = 0;
};

}  // namespace moored::lab
