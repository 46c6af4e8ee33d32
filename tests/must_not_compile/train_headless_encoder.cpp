// SPDX-License-Identifier: MIT
// Hidden states alone have no labels.
// expect: linnet: the model lacks loss<T, S>
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::encoder_shape shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 16};
using Model = ln::encoder<shape>;
#if defined(LINNET_FAIL)
using Trained = Model::with_head<ln::head::none>;
#else
using Trained = Model;
#endif
void train(ln::weights<Trained>& w) { (void)ln::trainer<Trained>::open(w, {}); }
