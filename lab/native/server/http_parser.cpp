// lab/native/server/http_parser.cpp: the callbacks of llhttp, the limits, and what a parse error
// means.
#include "http_parser.hpp"

#include <utility>

namespace moored::lab {

http_parser::http_parser() {
  llhttp_init(&parser_, HTTP_REQUEST, &settings());
  parser_.data = this;
}

http_parser& http_parser::of(llhttp_t* parser) noexcept {
  return *static_cast<http_parser*>(parser->data);
}

int http_parser::within(std::size_t& size, std::size_t more, std::size_t most,
                        int status) noexcept {
  size += more;
  if (size <= most) return HPE_OK;
  status_ = status;
  return HPE_USER;
}

const llhttp_settings_t& http_parser::settings() noexcept {
  static const llhttp_settings_t shared = [] {
    llhttp_settings_t s;
    llhttp_settings_init(&s);
    s.on_message_begin = [](llhttp_t* p) {
      http_parser& self = of(p);
      self.path_.clear();
      self.headers_ = self.body_ = 0;
      return int{HPE_OK};
    };
    s.on_url = [](llhttp_t* p, const char* at, std::size_t size) {
      http_parser& self = of(p);
      self.path_.append(at, size);
      std::size_t all = self.path_.size();
      return self.within(all, 0, most_path, 414);
    };
    s.on_header_field = s.on_header_value = [](llhttp_t* p, const char*, std::size_t size) {
      return of(p).within(of(p).headers_, size, most_headers, 431);
    };
    s.on_body = [](llhttp_t* p, const char*, std::size_t size) {
      return of(p).within(of(p).body_, size, most_body, 413);
    };
    s.on_message_complete = [](llhttp_t* p) {
      of(p).finish_request();
      return int{HPE_OK};
    };
    return s;
  }();
  return shared;
}

void http_parser::finish_request() {
  (*done_)({.method = llhttp_method_name(static_cast<llhttp_method_t>(parser_.method)),
            .path = std::exchange(path_, {}),
            .keep_alive = llhttp_should_keep_alive(&parser_) != 0});
}

int http_parser::feed(std::span<const char> bytes, const on_request& done) {
  done_ = &done;
  llhttp_errno_t error = llhttp_execute(&parser_, bytes.data(), bytes.size());
  while (error == HPE_PAUSED_UPGRADE) {
    // We speak HTTP/1.1 only and may ignore the offer: what follows is the next request.
    const char* rest = llhttp_get_error_pos(&parser_);
    llhttp_resume_after_upgrade(&parser_);
    error = llhttp_execute(&parser_, rest,
                           static_cast<std::size_t>(bytes.data() + bytes.size() - rest));
  }
  done_ = nullptr;
  if (error == HPE_OK) return 0;
  return status_ != 0 ? status_ : 400;
}

}  // namespace moored::lab
