// SPDX-License-Identifier: MIT
// zoo search: refusals, and one space of two small decoders that is compiled, searched and resumed.

#include <fstream>

#include "program.hpp"

namespace test::search {

using test::check_refused;

BOOST_AUTO_TEST_SUITE(zoo_search)

BOOST_AUTO_TEST_CASE(refusals) {
  const test::scratch_folder folder;
  const std::string text = folder.path("text");
  std::ofstream(text) << std::string(20'000, 'x');
  const auto refused = [&](std::vector<std::string> more, const std::string& words) {
    more.insert(more.begin(), {"search", text});
    check_refused(more, words);
  };
  check_refused({"search"}, "text");
  refused({}, "--axis is required");
  refused({"--axis", "layers"}, "--axis 'layers': expected name=value");
  refused({"--axis", "layers=2,x"}, "--axis layers: 'x' is not a whole number");
  refused({"--axis", "layers=2,2"}, "--axis layers: 2 is given twice");
  refused({"--axis", "layers=2", "--axis", "layers=3"}, "--axis layers is given twice");
  refused({"--axis", "ffn=swigly"}, "did you mean swiglu?");
  refused({"--axis", "wings=2"}, "decoder has no wings");
  refused({"--axis", "layers=1", "--model", "byte-t5"}, "search takes decoders");
  refused({"--axis", "layers=1", "--model", "decoder:context=64"}, "give context=256");
  refused({"--axis", "layers=1", "--keep-one-of", "1"}, "--keep-one-of");
  refused({"--axis", "layers=1", "--html", folder.path("none/here.html")}, "none/here.html");
  refused({"--axis", "layers=1", "--html", text}, text);
  std::string many = "layers=1";
  for (int i = 2; i <= 201; ++i) many += "," + std::to_string(i);
  refused({"--axis", many}, "more than 200 models");
}

BOOST_AUTO_TEST_CASE(a_small_space_is_searched_and_resumed) {
  const test::scratch_folder folder;
  const std::string text = folder.path("text"), state = folder.path("state"),
                    page = folder.path("page.html");
  {
    std::ofstream to(text);
    for (int i = 0; i < 1'500; ++i) to << "the linnet sings " << i % 7 << ".\n";
  }
  setenv("XDG_CACHE_HOME", folder.path().c_str(), 1);
  setenv("CXXFLAGS", "-O0 -DLINNET_ONLY_LEVEL=portable", 1);
  const std::vector<std::string> arguments{
      "search",  text,          "--model",   "decoder:d_model=16,d_ff=24,heads=2,layers=1",
      "--axis",  "heads=2,3",   "--axis",    "ffn=skip,swiglu",
      "--steps", "2",           "--threads", "1",
      "--state", state,         "--html",    page,
      "--json",  "--finalists", "2"};
  const test::outcome first = test::zoo(arguments);
  const test::outcome again = test::zoo(arguments);
  std::vector<std::string> others = arguments;
  others.insert(others.end(), {"--seed", "2"});
  check_refused(others, "run: expected");
  unsetenv("XDG_CACHE_HOME");
  unsetenv("CXXFLAGS");
  BOOST_REQUIRE_MESSAGE(first.status == 0, first.err);
  BOOST_CHECK(first.err.find("2 steps of heads=2 ffn=skip\n") != first.err.npos);
  const auto found = nlohmann::json::parse(first.out);
  BOOST_CHECK_EQUAL(found["space"], 4);
  BOOST_REQUIRE_EQUAL(found["models"].size(), 2u);  // three heads do not divide 16
  constexpr int skip = 256 * 16 + 4 * 16 * 16 + 2 * 16, swiglu = skip + 3 * 16 * 24 + 16;
  double bits = 0;
  for (const auto& m : found["models"]) {
    const bool gated = m["name"] == "heads=2 ffn=swiglu";
    BOOST_CHECK_EQUAL(m["parameters"], gated ? swiglu : skip);
    BOOST_CHECK_EQUAL(m["bytes"], 4 * (gated ? swiglu : skip));
    BOOST_CHECK_EQUAL(m["steps"], 2);
    BOOST_CHECK_EQUAL(m["front"], !gated || &m == &found["models"][0]);
    BOOST_CHECK_GT(m["bits"].get<double>(), bits);  // the best first
    bits = m["bits"].get<double>();
  }
  BOOST_CHECK_EQUAL(again.out, first.out);
  BOOST_CHECK_EQUAL(again.err, "going on behind 2 trainings\n");
  const std::string html = test::contents(page);
  BOOST_CHECK(html.find("Pareto front") != html.npos && html.find("</html>") != html.npos);
  BOOST_CHECK(html.find("heads=2 ffn=swiglu") != html.npos);
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::search
