// SPDX-License-Identifier: MIT
// The command line of zoo compress.

#include "command_line.hpp"
#include "support.hpp"
#include "support/study.hpp"

namespace zoo {

void add_compress(CLI::App& app, compress_options& o) {
  CLI::App& c = *app.add_subcommand("compress",
                                    "Store a trained model in fewer bits, and say what that costs");
  c.add_option(
      "--model", o.model,
      "preset, an encoder's such as minilm among them, or a shape as zoo train takes it; a "
      "folder of zoo train knows its own");
  c.add_option("--weights", o.weights,
               "GGUF or safetensors file, Hugging Face directory, llama2.c .bin, or a folder of "
               "zoo train; without, what zoo fetch got")
      ->check(CLI::ExistingPath);
  c.add_option("--tokenizer", o.tokenizer,
               "as zoo generate takes it; without, the one that comes with the weights")
      ->type_name("TOKENIZER");
  c.add_option("--method", o.method,
               "rtn (round to nearest), gptq, clip (clipped ranges), awq, hqq (q4_1 alone), "
               "smoothquant (int8), owq (int4-row-out8), spqr (spqr3-out2), lorc (int4-g64-rank8), "
               "zeroquant and omniquant (train block by block), quarot (rotation, then gptq), "
               "spinquant (learned rotation, then gptq); magnitude, "
               "wanda or sparsegpt (prune); narrow (a smaller --shape); distil (train on by the "
               "logits of the model as it was). Several in a row are joined by +, such as "
               "narrow+distil+gptq or wanda+gptq; relufy (ReLUs, trained on by the logits), "
               "predict_neurons and predict_heads (which a token needs)")
      ->capture_default_str();
  c.add_option("--sparsity", o.sparsity,
               "what magnitude, wanda and sparsegpt make 0: percent of each matrix, or n:m, of "
               "which n of each m inputs stay; without, what --storage has no place for, or 50")
      ->type_name("PERCENT|N:M");
  auto* const shape = c.add_option(
      "--shape", o.shape,
      "of narrow: numbers that become smaller, such as layers=24,d_ff=1024; also "
      "heads, d_model, and of a T5 encoder_layers and decoder_layers. d_ff=512/384 and heads=8/4 "
      "have the number of each layer that is left; with ; between them, shapes of rounds, "
      "each trained by --steps");
  c.add_option("--importance", o.importance,
               "of narrow: what stays, by activation, taylor (gradients), lora (gradients of an "
               "adapter that trains meanwhile) or magnitude (no text); "
               "but for magnitude, layers go by their block influence")
      ->check(CLI::IsMember({"activation", "taylor", "lora", "magnitude"}))
      ->capture_default_str()
      ->needs(shape);
  c.add_option("--activation", o.activation,
               "that relufy gives feed-forwards: relu, shifted_relu (max(x - 1, 0)) or "
               "relu_squared; without, relu")
      ->check(CLI::IsMember({"relu", "shifted_relu", "relu_squared"}));
  c.add_option("--rank", o.rank, "of predict_neurons and predict_heads; without, 16")
      ->transform(whole_in(1L, 65'536L))
      ->type_name("N");
  c.add_option(
       "--storage", o.how.storage,
       "as of zoo bench: int4-row, int4-g64, nf4-g64, fp4-g64, mxfp4, nf4-double, int3-g64, "
       "int8, q4_0, spqr3, …, and f32 for what is pruned, rebuilt or trained alone. "
       "int4-g64-2:4 keeps 2 of 4 inputs, bf16-mask50 50 percent of each row; -out8 keeps "
       "8 inputs of each matrix, or of each row of spqr, -rank8 adds a matrix of rank 8. "
       "Another one for some matrices is behind a +, such as int4-row+q8_0 for the "
       "embedding, int3-g64+ffn_down=int4-g64, or of layers "
       "int4-g64+first1=int8+last2=int8+layers3-5=int8")
      ->capture_default_str();
  c.add_option("--compute", o.how.compute,
               "what inputs of products are rounded to at run time: f32, or int8 with integers, "
               "mixed_int8 (but those of magnitude 6, or of 2 as mixed_int8-2), int4, or fp8 with "
               "any codes")
      ->capture_default_str();
  const auto text = [&](const char* name, std::string& value, const char* what) {
    return c.add_option(name, value, what)->check(CLI::ExistingFile)->type_name("TEXT");
  };
  auto* const calibrate = text("--calibrate", o.calibrate, "text that the model runs on first");
  auto* const evaluate = text("--evaluate", o.evaluate,
                              "text that it is judged by, before and after; another than that of "
                              "--calibrate");
  const auto count = [&](const char* name, long& value, const char* what, CLI::Option* needs) {
    auto* const added =
        c.add_option(name, value, what)->transform(whole_in(1L, 1'000'000L))->type_name("N");
    if (needs) added->needs(needs);
    if (value > 0) added->capture_default_str();
  };
  count("--samples", o.samples,
        "most windows of calibration; without, 128, or 512 lines of an encoder's text", calibrate);
  count("--windows", o.windows, "most windows of evaluation, evenly spread", evaluate);
  count("--length", o.length,
        "tokens of a window; without, 512 or the model's context. An encoder reads each line of a "
        "text, cut there; without, 256",
        nullptr);
  count("--steps", o.steps,
        "most steps of spinquant, distil, relufy and each round of narrow, of four windows each",
        calibrate);
  c.add_option("--rate", o.rate, "highest learning rate of distil, relufy and rounds")
      ->check(number_in(0, 1))
      ->capture_default_str()
      ->needs(calibrate);
  auto* const sequential =
      c.add_flag("--sequential", o.sequential,
                 "calibrate each block on what the blocks before it give once they are rounded; "
                 "the text is run once for each block")
          ->needs(calibrate);
  c.add_option("--minutes", o.minutes,
               "after which calibration takes the windows that it has read, and learning the steps")
      ->check(number_in(0, 1e6))
      ->capture_default_str()
      ->needs(calibrate)
      ->excludes(sequential);
  c.add_option("--statistics", o.statistics,
               "file that keeps what calibration gathered; a later call reads it and goes on from "
               "there")
      ->type_name("FILE")
      ->needs(calibrate)
      ->excludes(sequential);
  c.add_option("--reference", o.reference,
               "file that keeps the figures before; a later call reads them")
      ->type_name("FILE")
      ->needs(evaluate);
  c.add_option("--out", o.out,
               "safetensors file to write, which knows its storage: zoo eval, generate, chat, "
               "logits and embed take it as --weights")
      ->required()
      ->type_name("FILE");
  c.add_flag("--json", o.json, "print JSON");
  add_seed(c, o.seed);
  add_threads(c, o.threads);
  c.callback([&] { compress(o); });
}

}  // namespace zoo
