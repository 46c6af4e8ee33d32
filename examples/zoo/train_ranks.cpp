// SPDX-License-Identifier: MIT
#include "train_ranks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <linnet/core/random.hpp>

#include "train_tokenizer.hpp"
#include "trained.hpp"

namespace zoo {

void set_parts(train_options& o, const beginning* begun) {
  if (o.parts == 0 && o.resume && is_trained(o.out))
    o.parts = open_trained(o.out).described.value("parts", 0L);
  if (o.parts == 0 && here.alone()) return;
  if (begun || o.taught)
    throw failure("zoo finetune and zoo distil train in one process; zoo train takes several");
  if (o.compute != "f32" && o.compute != "bf16")
    throw failure(fmt::format("--compute {}: several processes train in f32 or bf16", o.compute));
  if (o.optimizer == "sophia")
    throw failure("--optimizer sophia: several processes train with another one, such as adamw");
  if (o.batch < here.size)
    throw failure(
        fmt::format("--batch {}: fewer examples than the {} processes", o.batch, here.size));
  if (o.parts == 0) {
    o.parts = std::max(std::min(8L, static_cast<long>(o.batch)), static_cast<long>(here.size));
    while (o.batch % o.parts != 0) ++o.parts;
  }
  if (o.batch % o.parts != 0 || o.parts < here.size)
    throw failure(
        fmt::format("--parts {}: expected a divisor of the {} examples of a batch, no "
                    "smaller than the {} processes",
                    o.parts, o.batch, here.size));
}

void check_ranks(const module& code, const nlohmann::ordered_json& described,
                 const tokenizing& by) {
  const process_place there = code.place();
  if (there.rank != here.rank || there.size != here.size)
    throw failure(fmt::format(
        "this process is {} of {} by its environment, {} of {} by MPI: mpirun is of another MPI "
        "than the one that zoo was built with",
        here.rank + 1, here.size, there.rank + 1, there.size));
  // The description has a mark of the text.
  const std::uint64_t mark = ln::stream_of(file_of(by), ln::stream_of(described.dump()));
  if (const ln::index other = code.unlike(mark); other >= 0)
    throw failure(fmt::format(
        "rank {}: another text, tokenizer or other options than those of rank 0", other));
}

}  // namespace zoo
