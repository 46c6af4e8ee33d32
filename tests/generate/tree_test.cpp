// SPDX-License-Identifier: MIT
// Trees of tokens in one call equal each path alone, in any cache; speculation by trees writes the
// target's texts.

#include "support/data.hpp"
#include "support/law.hpp"

namespace test::tree_test {

namespace {

using llama = ln::decoder<tiny_decoder_shape>;

/// Two roots; node 5 is a second child of 1, nodes 6 and 7 continue it.
const std::vector<index> parents{-1, 0, 1, 0, -1, 1, 5, 6, 4};
const std::vector<token> tree{4, 7, 2, 9, 5, 1, 3, 8, 6};

/// Tokens from the text to a node.
std::vector<index> path_to(index node) {
  std::vector<index> path;
  for (index i = node; i >= 0; i = parents[at(i)]) path.insert(path.begin(), i);
  return path;
}

/// Logits behind every node equal those of its path fed alone; each path can be kept, and the text
/// goes on as if nothing else had been fed.
template <class M, class T>
void check_tree(index blocks, index past, double bound) {
  const auto p = random_packed<M, T>(5);
  const index n = std::ssize(tree);
  const ln::limits l{.batch = 1, .target = 64, .kv_blocks = blocks, .max_logits = n};
  const auto text = tokens(past, M::vocabulary, 9);
  const std::vector<token> more{2, 6, 1};
  for (index last = -1; last < n; ++last) {
    auto run = opened(p, l);
    if (past > 0) BOOST_REQUIRE(!run.prefill(text).empty());
    const auto got = run.feed_tree(tree, parents);
    BOOST_REQUIRE_MESSAGE(!got.empty(), run.last_refusal());
    BOOST_TEST(run.position() == past);
    const std::vector<T> logits(got.begin(), got.end());
    BOOST_REQUIRE(run.keep_path(last));
    const auto path = path_to(last);
    BOOST_TEST(run.position() == past + std::ssize(path));
    std::vector<token> kept(text);
    auto alone = opened(p, l);
    if (past > 0) BOOST_REQUIRE(!alone.prefill(text).empty());
    for (const index node : path) {
      kept.push_back(tree[at(node)]);
      const auto own = alone.feed({&tree[at(node)], 1});
      BOOST_TEST(distance(row_of<M>(logits, node), std::span<const T>(own)) <= bound,
                 "node " << node << " behind " << past);
    }
    const auto fed = run.fed();
    BOOST_TEST((std::vector<token>(fed.begin(), fed.end()) == kept));
    const auto a = run.feed(more), b = alone.feed(more);
    BOOST_REQUIRE(a.size() == b.size());
    BOOST_TEST(distance(std::span<const T>(a), std::span<const T>(b)) <= bound);
    if (blocks > 0) BOOST_TEST(run.free_blocks() == alone.free_blocks());
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(trees)

BOOST_AUTO_TEST_CASE(every_path_is_as_if_fed_alone) {
  for (const index blocks : {0, 3})
    for (const index past : {0, 5, 29}) {
      check_tree<llama, double>(blocks, past, 1e-12);
      check_tree<ln::decoder<tiny_decoder_shape, ln::position::learned, ln::kv::int8>, float>(
          blocks, past, 1e-5);
    }
  check_tree<ln::decoder<tiny_decoder_shape, ln::position::learned, ln::kv::f16>, float>(3, 29,
                                                                                         1e-5);
}

// Another token on a branch changes no bit of the others, and one that is NaN does not reach them.
BOOST_AUTO_TEST_CASE(branches_do_not_see_each_other) {
  ln::weights<llama> w;
  randomize(w, 5);
  auto plain = ln::pack(w);
  w.tree().embedding.data[9 * llama::d] = std::numeric_limits<float>::quiet_NaN();  // of node 3
  const auto broken = ln::pack(w);
  const index n = std::ssize(tree);
  auto a = opened(plain, {.target = 64, .max_logits = n}),
       b = opened(broken, {.target = 64, .max_logits = n});
  const std::vector<token> text{1, 2};
  BOOST_REQUIRE(!a.prefill(text).empty() && !b.prefill(text).empty());
  auto other = tree;
  other[3] = 0;
  const auto first = a.feed_tree(other, parents);
  const std::vector<float> changed(first.begin(), first.end());
  const auto x = a.feed_tree(tree, parents), y = b.feed_tree(tree, parents);
  for (index node = 0; node < n; ++node) {
    const auto row = at(node * llama::vocabulary);
    BOOST_TEST((node == 3) != same_bits(x.subspan(row, 9), std::span(changed).subspan(row, 9)));
    for (std::size_t v = 0; v < 9; ++v) {  // the tied head's row 9 is NaN itself
      BOOST_TEST((node == 3) == ln::is_nan(y[row + v]));
      if (node != 3) BOOST_TEST(std::abs(y[row + v] - x[row + v]) < 1e-5f);
    }
  }
}

// Blocks that a tree holds are free for the call that forgets it, and are not taken twice.
BOOST_AUTO_TEST_CASE(a_forgotten_tree_holds_no_blocks) {
  const auto p = random_packed<llama, float>(5);
  auto run = opened(p, {.batch = 2, .target = 64, .kv_blocks = 3, .max_logits = 40});
  const std::vector<index> lengths{1, 33};
  const auto both = tokens(66, llama::vocabulary, 7);
  std::vector<index> chain(40);
  for (index i = 0; i < 40; ++i) chain[at(i)] = i - 1;
  const auto drafts = tokens(40, llama::vocabulary, 8);
  for (int again = 0; again < 2; ++again) {
    run.reset();
    BOOST_REQUIRE(!run.feed(std::vector<token>{3}).empty());
    BOOST_TEST(run.free_blocks() == 2);
    BOOST_REQUIRE(!run.feed_tree(drafts, chain).empty());
    BOOST_TEST(run.free_blocks() == 2);  // of which the tree has one until the next call
    // A call that does not fit leaves the tree as it is.
    BOOST_TEST(run.feed(both, 2, std::vector<index>{33, 33}).empty());
    BOOST_TEST(run.last_refusal() == ln::to_string(ln::refusal::no_blocks));
    if (again == 1) {
      BOOST_REQUIRE(run.keep_path(39));
      BOOST_TEST(run.position() == 41);
      BOOST_TEST(run.free_blocks() == 1);
      continue;
    }
    BOOST_REQUIRE_MESSAGE(!run.feed(both, 2, lengths).empty(), run.last_refusal());
    BOOST_TEST(run.free_blocks() == 0);
    BOOST_TEST(run.position(1) == 33);
    BOOST_TEST(!run.keep_path(0));
  }
}

BOOST_AUTO_TEST_CASE(what_is_no_tree) {
  const auto p = random_packed<llama, float>(5);
  auto run = opened(p, {.target = 12, .max_logits = 4});
  const std::vector<token> text{1, 2}, three{3, 4, 5};
  BOOST_REQUIRE(!run.prefill(text).empty());
  const auto refused = [&](std::vector<token> some, std::vector<index> of, ln::refusal why) {
    BOOST_TEST(run.feed_tree(some, of).empty());
    BOOST_TEST(run.last_refusal() == ln::to_string(why));
    BOOST_TEST(run.position() == 2);
  };
  using ln::refusal;
  refused(three, {-1, 2, 1}, refusal::tree_parents);  // a circle
  refused(three, {-1, 1, 0}, refusal::tree_parents);  // its own parent
  refused(three, {1, -1, 0}, refusal::tree_parents);
  refused(three, {-1, 0}, refusal::tree_parents);
  refused(three, {-2, 0, 0}, refusal::tree_parents);
  refused({1, 2, 3, 4, 5}, {-1, 0, 0, 0, 0}, refusal::over_logits);
  refused({1, 11, 3}, {-1, 0, 0}, refusal::token_outside_vocabulary);
  refused({}, {}, refusal::no_tokens);
  BOOST_TEST(!run.keep_path(0));
  BOOST_TEST(run.last_refusal() == ln::to_string(refusal::no_tree));
  // What is fed instead of keeping a path forgets the tree.
  BOOST_REQUIRE(!run.feed_tree(three, std::vector<index>{-1, 0, 0}).empty());
  BOOST_TEST(!run.keep_path(3));
  BOOST_TEST(!run.feed(text).empty());
  BOOST_TEST(run.position() == 4);
  BOOST_TEST(!run.keep_path(0));
  auto alone = opened(p, {.target = 12});
  (void)alone.feed(std::vector<token>{1, 2, 1, 2});
  BOOST_TEST(distance(run.feed(text), alone.feed(text)) < 1e-5);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::tree_test
