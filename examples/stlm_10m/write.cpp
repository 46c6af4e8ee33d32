// SPDX-License-Identifier: MIT
// Lets SmolLM2-135M-Instruct write short articles to learn from:
//
//     stlm_10m_write SmolLM2-135M-Instruct.Q4_1.gguf topics.txt COUNT OUT.txt
//
// One for each of the first COUNT topics, sixteen at a time. The draws have seed 1.

#include <linnet/generated_data.hpp>
#include <linnet/gguf.hpp>
#include <linnet/linnet.hpp>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace ln = linnet;

namespace {

int refuse(const std::string& why) {
  std::fprintf(stderr, "stlm_10m_write: %s\n", why.c_str());
  return 1;
}

}  // namespace

int main(int count, char** arguments) {
  using small_model = ln::quantized<ln::zoo::smollm2_135m, ln::storage::int8>;
  if (count != 5) return refuse("usage: stlm_10m_write MODEL.gguf TOPICS COUNT OUT");
  const auto file = ln::read_gguf(arguments[1]);
  if (!file) return refuse(file.error().message());
  const auto pieces = ln::make_tokenizer(*file);
  if (!pieces) return refuse(pieces.error().message());
  ln::weights<ln::zoo::smollm2_135m> w;
  if (const auto loaded = ln::load_gguf(w, *file); !loaded) return refuse(loaded.error().message());
  const auto packed = ln::pack(ln::quantize<ln::storage::int8>(w));
  auto teacher = ln::session_teacher<small_model>::open(
      packed, {.batch = 16, .target = 400, .chunk = 64}, *pieces,
      {.tokens = 320, .sampling = {.temperature = 0.7, .top_p = 0.95, .seed = 1}, .chat = true});
  if (!teacher) return refuse(teacher.error().message());

  std::vector<ln::teacher_request> requests;
  std::ifstream topics(arguments[2]);
  for (std::string topic; std::ssize(requests) < std::atol(arguments[3]);) {
    if (!std::getline(topics, topic)) return refuse("there are fewer topics");
    ln::teacher_request one;
    one.prompt = "Write a short article about " + topic +
                 " in simple English, as in an encyclopedia for children.";
    requests.push_back(std::move(one));
  }
  const auto texts = teacher->generate(requests);
  if (!texts) return refuse(texts.error().message());
  std::ofstream out(arguments[4]);
  for (const std::string& text : *texts) out << text << "\n\n";
  return out.flush() ? 0 : refuse(std::string(arguments[4]) + ": cannot be written");
}
