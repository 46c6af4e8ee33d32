// T5 1.0 and 1.1 against Hugging Face Transformers in double precision.

#include "support/golden.hpp"

namespace test {

namespace {

/// The encoder's output after its final norm, at valid tokens.
template <class M, class T>
void check_hidden(const std::string& name, double tolerance) {
  const golden_case<M> c(name);
  const auto p = ln::pack(c.template weights<T>());
  const ln::memory_block memory(ln::session<M, T>::footprint(c.limits()));
  auto work = ln::detail::place_workspace<M, T>(c.limits(), ln::purpose::decoding, memory.data());
  M::template encode<T, ln::storage_of<M, T>>(p.tree(), c.source.data(), c.batch, c.source_length, c.lengths.data(), work,
                                              ln::ops::machine{{}, ln::simd::best()});
  const std::vector<T> hidden(work.memory, work.memory + c.batch * c.source_length * M::d);
  BOOST_TEST(c.difference("hidden.encoder", hidden, c.source_length, false) <= tolerance, name);
}
template <class M>
void check_case(const std::string& name) {
  check_golden_in_both<M>(name);
  check_hidden<M, double>(name, 1e-6);
  check_hidden<M, float>(name, 1e-4);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(golden_t5)

BOOST_AUTO_TEST_CASE(version_1_0) { check_case<t5_1_0>("t5_v1_0"); }
// Every bucket of both bias tables.
BOOST_AUTO_TEST_CASE(version_1_0_long) { check_case<t5_long>("t5_v1_0_long"); }
BOOST_AUTO_TEST_CASE(version_1_1) { check_case<t5_1_1>("t5_v1_1"); }

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test
