// unit/moored_h.cpp: moored.h answers as the library does, and bears bad arguments.
#include "child.hpp"

#include <moored/moored.h>

using namespace moored_test;

TEST(c_face, attaches_nests_and_detaches) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      moored_attachment outer, inner;
      EXPECT_EQ(moored_attach(&outer), MOORED_OK);
      EXPECT_EQ(moored_attach(&inner), MOORED_OK);
      run("calls = 1");
      moored_detach(&inner);
      EXPECT_EQ(value_of("calls"), 1);
      moored_detach(&outer);
      moored_detach(&outer);  // again does nothing
      EXPECT_EQ(moored_keep_thread(), MOORED_OK);
      moored_release_thread();
      EXPECT_EQ(moored_stats().states_kept, 0U);
      moored_set_kept_limit(1);
      EXPECT_EQ(moored_stats().states_over_limit, 0U);
    });
    EXPECT_EQ(moored_stats().states_made, moored_stats().states_freed);
  });
}

TEST(c_face, an_attachment_that_is_live_stays_so_and_is_given_back_once) {
  in_child([] {
    const python interpreter;
    on_foreign_thread([] {
      moored_attachment attachment;
      EXPECT_EQ(moored_attach(&attachment), MOORED_OK);
      EXPECT_EQ(moored_attach(&attachment), MOORED_ATTACHED_ALREADY);
      EXPECT_EQ(moored_attach_by(&attachment, MOORED_TEMPORARY), MOORED_ATTACHED_ALREADY);
      EXPECT_STREQ(moored_describe(MOORED_ATTACHED_ALREADY), "this attachment is live already");
      run("calls = 1");
      moored_detach(&attachment);
      EXPECT_FALSE(moored::detail::is_attached());
      EXPECT_EQ(moored_attach(&attachment), MOORED_OK);  // it can be filled anew
      moored_detach(&attachment);
    });
  });
}

TEST(c_face, says_why_it_refuses) {
  in_child([] {
    moored_attachment attachment;
    EXPECT_EQ(moored_attach(&attachment), MOORED_NO_INTERPRETER);
    moored_detach(&attachment);
    EXPECT_EQ(moored_attach(nullptr), MOORED_BAD_ARGUMENT);
    moored_detach(nullptr);
    EXPECT_EQ(moored_attach_by(&attachment, 9), MOORED_BAD_ARGUMENT);
    moored_detach(&attachment);
    EXPECT_EQ(moored_keep_thread(), MOORED_NO_INTERPRETER);
    const python interpreter;
    EXPECT_EQ(moored_open(), MOORED_OK);
    on_foreign_thread([&] {
      if (!has_gil) {
        EXPECT_EQ(moored_attach_by(&attachment, MOORED_SHARED), MOORED_UNSUPPORTED);
        return;
      }
      EXPECT_EQ(moored_attach_by(&attachment, MOORED_BORROWED), MOORED_NOT_IDLE);
      EXPECT_EQ(moored_attach_by(&attachment, MOORED_SHARED), MOORED_OK);
      EXPECT_EQ(moored_keep_thread(), MOORED_NOT_KEPT);
      moored_detach(&attachment);
    });
  });
}

TEST(c_face, installs_the_chunk_cache) {
  in_child([] {
    const bool gains = moored::cpython::has_data_stacks();
    EXPECT_EQ(moored_install(), gains ? MOORED_OK : MOORED_NOTHING_TO_GAIN);
    EXPECT_EQ(moored_install(), gains ? MOORED_OK : MOORED_NOTHING_TO_GAIN);
    const python interpreter;
    for (int i = 0; i < 2; ++i) {
      on_foreign_thread([] { as_another_binding([] { run("pass"); }); });
    }
    const moored_chunk_stats counted = moored_stats_of_chunks();
    EXPECT_EQ(counted.hits > 0, gains);
    EXPECT_EQ(counted.bytes_held, counted.held * 16 * 1024);
  });
}

TEST(c_face, describes_every_status) {
  for (int status = MOORED_OK; status <= MOORED_NO_DESCRIPTORS; ++status) {
    const char* const text = moored_describe(static_cast<moored_status>(status));
    ASSERT_NE(text, nullptr);
    EXPECT_STRNE(text, "unknown");
  }
}

TEST(c_face, a_channel_gives_its_bytes_to_a_handler_and_to_python) {
  in_child([] {
    const python interpreter;
    moored_channel* channel = nullptr;
    ASSERT_EQ(moored_channel_new(&channel, "c", 2, MOORED_REJECT, MOORED_ENTER), MOORED_OK);
    static std::string got;
    on_foreign_thread([&] {
      EXPECT_EQ(moored_channel_send(channel, "one", 3), MOORED_OK);
      EXPECT_EQ(moored_channel_send(channel, "two", 3), MOORED_OK);
      EXPECT_EQ(moored_channel_send(channel, "three", 5), MOORED_FULL);
    });
    EXPECT_EQ(moored_channel_on_event(
                  channel,
                  [](void*, const void* bytes, size_t size) {
                    got.append(static_cast<const char*>(bytes), size);
                  },
                  nullptr),
              MOORED_OK);
    EXPECT_EQ(got, "onetwo");
    EXPECT_EQ(moored_channel_on_event(channel, nullptr, nullptr), MOORED_OK);
    EXPECT_EQ(moored_channel_deliver_by(channel, MOORED_POLL), MOORED_OK);
    EXPECT_EQ(moored_channel_send(channel, "x", 1), MOORED_OK);
    auto* const capsule = static_cast<PyObject*>(moored_channel_capsule(channel));
    const auto* const table = static_cast<moored::channel_capsule*>(
        PyCapsule_GetPointer(capsule, moored::channel_capsule_name));
    PyObject* const list = table->take(table->channel, -1);
    EXPECT_STREQ(PyBytes_AsString(PyList_GetItem(list, 0)), "x");
    Py_DECREF(list);
    Py_DECREF(capsule);
    moored_channel_close(channel);
    EXPECT_EQ(moored_channel_try_send(channel, "x", 1), MOORED_CLOSED);
    const moored_channel_stats stats = moored_stats_of_channel(channel);
    EXPECT_EQ(stats.sent, 3U);
    EXPECT_EQ(stats.delivered, 3U);
    EXPECT_EQ(stats.rejected, 1U);
    EXPECT_EQ(stats.refused, 1U);
    EXPECT_GE(moored_channel_fileno(channel), 0);
    moored_channel_free(channel);
  });
}

TEST(c_face, channels_bear_bad_arguments) {
  moored_channel* channel = nullptr;
  EXPECT_EQ(moored_channel_new(nullptr, "c", 1, MOORED_BLOCK, MOORED_WAKE), MOORED_BAD_ARGUMENT);
  EXPECT_EQ(moored_channel_new(&channel, nullptr, 1, MOORED_BLOCK, MOORED_WAKE),
            MOORED_BAD_ARGUMENT);
  EXPECT_EQ(moored_channel_new(&channel, "c", 0, MOORED_BLOCK, MOORED_WAKE), MOORED_BAD_ARGUMENT);
  EXPECT_EQ(moored_channel_new(&channel, "c", 1, 4, MOORED_WAKE), MOORED_BAD_ARGUMENT);
  EXPECT_EQ(moored_channel_new(&channel, "c", 1, MOORED_BLOCK, 5), MOORED_BAD_ARGUMENT);
  EXPECT_EQ(moored_channel_new(&channel, "c", 1, MOORED_BLOCK, MOORED_INTERRUPT),
            moored::cpython::pending_calls_interrupt ? MOORED_OK : MOORED_UNSUPPORTED);
  moored_channel_free(channel);
  EXPECT_EQ(moored_channel_send(nullptr, "x", 1), MOORED_BAD_ARGUMENT);
  ASSERT_EQ(moored_channel_new(&channel, "huge", 1, MOORED_REJECT, MOORED_POLL), MOORED_OK);
  for (const std::size_t size : {SIZE_MAX, SIZE_MAX / 2 + 1})
    EXPECT_EQ(moored_channel_send(channel, "x", size), MOORED_NO_MEMORY);
  moored_channel_free(channel);
  EXPECT_EQ(moored_channel_deliver_by(nullptr, MOORED_WAKE), MOORED_BAD_ARGUMENT);
  moored_channel_close(nullptr);
  moored_channel_free(nullptr);
  EXPECT_EQ(moored_channel_fileno(nullptr), -1);
  EXPECT_EQ(moored_stats_of_channel(nullptr).sent, 0U);
}
