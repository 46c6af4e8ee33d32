// SPDX-License-Identifier: MIT
// Any bytes as a config.json: parsed and compared with a model of each kind.

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

namespace ln = linnet;

namespace fuzz::config {

int one_input(const std::uint8_t* data, std::size_t size) {
  const auto config = ln::parse_hf_config({reinterpret_cast<const std::byte*>(data), size});
  if (!config) {
    if (config.error().message().empty()) __builtin_trap();
    return 0;
  }
  (void)ln::check_config<ln::zoo::t5_tiny>(*config);
  (void)ln::check_config<ln::zoo::t5_v1_1_small>(*config);
  (void)ln::check_config<ln::zoo::stlm_50m>(*config);
  (void)ln::check_config<ln::zoo::gpt2_small>(*config);
  (void)ln::check_config<ln::zoo::bert_base>(*config);
  (void)ln::check_config<ln::zoo::distilbert_base>(*config);
  (void)ln::check_config<ln::zoo::albert_base>(*config);
  (void)ln::check_config<ln::zoo::roberta_base>(*config);
  return 0;
}

}  // namespace fuzz::config
