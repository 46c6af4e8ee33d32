// SPDX-License-Identifier: MIT
#pragma once
// What models learn from: i.i.d. denoising of text on bytes, and the tasks of
// GLUE as text.

#include <array>
#include <linnet/data/denoising_stream.hpp>
#include <linnet/data/glue.hpp>
#include <linnet/data/pair_stream.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "models.hpp"

namespace study {

/// ByT5's ids with sentinels down from the last.
inline constexpr ln::byte_tokenizer bytes_of_text = ln::byte_tokenizer::t5(byte_vocabulary);

/// I.i.d. denoising of 15% of windows of `bytes` bytes. A target has room for half of them, which
/// one window in thousands would exceed.
using denoising_examples = ln::denoising_stream<ln::byte_source>;
denoising_examples denoise(std::span<const std::string_view> text, ln::index batch, ln::index bytes,
                           std::uint64_t seed);

/// Bytes of text that the labels of a batch ask for.
ln::index masked_bytes(const ln::t5_batch& b);

/// A task with what there is to learn it from and to be asked.
struct task {
  ln::text_task words;
  std::vector<ln::text_pair> training;
  struct exam {
    std::string name;  ///< of the figure: "sst2", "mnli-m", "mnli-mm"
    std::vector<ln::text_pair> pairs;
  };
  std::vector<exam> exams;
};
inline constexpr std::array<std::string_view, 2> task_names{"sst2", "mnli"};
/// The folder of a task's training set in the data folder.
std::string folder_of(const std::string& data, std::string_view name);
/// Reads a task from sst2, or from mnli_train10k, mnli_m_dev and mnli_mm_sample1000.
task read_task(const std::string& folder, std::string_view name);

}  // namespace study
