// c_face_test.cpp: moored.h answers as the library does, and bears bad arguments.
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
      EXPECT_EQ(moored_count().states_kept, 0U);
    });
    EXPECT_EQ(moored_count().states_made, moored_count().states_freed);
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
      EXPECT_EQ(moored_attach_by(&attachment, MOORED_BORROWED), MOORED_NOT_IDLE);
      EXPECT_EQ(moored_attach_by(&attachment, MOORED_SIDE), MOORED_OK);
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
    const moored_chunk_counters counted = moored_count_chunks();
    EXPECT_EQ(counted.hits > 0, gains);
    EXPECT_EQ(counted.bytes_held, counted.held * 16 * 1024);
  });
}

TEST(c_face, describes_every_status) {
  for (int status = MOORED_OK; status <= MOORED_NOTHING_TO_GAIN; ++status) {
    const char* const text = moored_describe(static_cast<moored_status>(status));
    ASSERT_NE(text, nullptr);
    EXPECT_STRNE(text, "unknown");
  }
}
