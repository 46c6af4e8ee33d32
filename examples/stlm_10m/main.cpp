// SPDX-License-Identifier: MIT
// stlm_10m: trains the 10M model of tokens and its byte-pooled sister on the same windows of the
// same texts, and asks both the questions of a paper's table.
//
//     stlm_10m train tokens --data TEXTS --merges vocab.bpe --out DIR --steps 4000
//     stlm_10m eval tokens --data TESTS --merges vocab.bpe --weights DIR/tokens.400.safetensors
//
// A training goes on where it was. DIR has a log, a curve of the loss on texts that are learned and
// held out with the weights at each of its points, and a checkpoint. eval keeps the scores of items
// beside the weights, and goes on from them.

#include "commands.hpp"
#include "support/study.hpp"

int main(int argc, char** argv) {
  using namespace stlm_10m;
  CLI::App app{"Two models of 10M parameters, of tokens and of bytes", "stlm_10m"};
  options o;
  app.require_subcommand(1);
  const std::vector<std::string> kinds{"tokens", "bytes"};
  CLI::App* const learn = app.add_subcommand("train", "trains, or goes on where a training was");
  CLI::App* const ask = app.add_subcommand("eval", "asks the questions of tests");
  for (CLI::App* const one : {learn, ask}) {
    one->add_option("kind", o.kind, "tokens or bytes")->required()->check(CLI::IsMember(kinds));
    one->add_option("--data", o.data, "folder of texts, or of tests")->required();
    one->add_option("--merges", o.merges, "GPT-2's vocab.bpe")->required();
  }
  learn->add_option("--out", o.out, "folder of results")->capture_default_str();
  learn->add_option("--steps", o.steps, "steps of 2,048 tokens")->capture_default_str();
  learn->add_option("--rate", o.rate, "highest learning rate")->capture_default_str();
  ask->add_option("--weights", o.weights, "what a training has left")->required();
  ask->add_option("--tasks", o.tasks, "tests")->capture_default_str();
  ask->add_option("--limit", o.limit, "items of each test, evenly spread; 0 for all");
  return support::run_program(app, argc, argv, [&] {
    const bool by_bytes = o.kind == "bytes";
    if (learn->parsed()) return by_bytes ? train_bytes(o) : train_tokens(o);
    return by_bytes ? judge_bytes(o) : judge_tokens(o);
  });
}
