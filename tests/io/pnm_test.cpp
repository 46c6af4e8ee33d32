// SPDX-License-Identifier: MIT
// PGM and PPM images: samples of 8 and 16 bits, comments, every kind of bad file, and files of
// encoders that read images.

#include "io/models.hpp"
#include "support/allocations.hpp"

namespace test::pnm_test {

namespace {

using namespace std::string_literals;

/// What parse_pnm() says of a file.
std::string refused(const std::string& file) { return message(ln::parse_pnm(bytes(file), "x")); }

}  // namespace

BOOST_AUTO_TEST_SUITE(pnm)

BOOST_AUTO_TEST_CASE(grey) {
  const auto image = ln::parse_pnm(bytes("P5\n# a comment\n3\t2 # another\n5\n\0\1\2\3\4\5"s));
  LINNET_REQUIRE_OK(image);
  BOOST_TEST((image->height == 2 && image->width == 3 && image->channels == 1));
  BOOST_REQUIRE(image->pixels.size() == 6u);
  for (std::size_t i = 0; i < 6; ++i)
    BOOST_TEST(std::abs(image->pixels[i] - static_cast<float>(i) / 5) < 1e-7F);
  BOOST_TEST((image->view().pixels == image->pixels.data() && image->view().width == 3));
}
// Big-endian samples, pixel by pixel.
BOOST_AUTO_TEST_CASE(colours_of_16_bits) {
  const auto image = ln::parse_pnm(bytes("P6 1 2 1000\n\0\0\0\1\1\0\3\xe8\2\0\0\2"s));
  LINNET_REQUIRE_OK(image);
  BOOST_TEST((image->height == 2 && image->width == 1 && image->channels == 3));
  const float want[] = {0, 0.001F, 0.256F, 1, 0.512F, 0.002F};
  for (std::size_t i = 0; i < 6; ++i) BOOST_TEST(std::abs(image->pixels[i] - want[i]) < 1e-6F);
}
BOOST_AUTO_TEST_CASE(written_and_read) {
  const scratch_folder folder;
  const std::string path = folder.path("image.ppm");
  const float pixels[] = {0, 1, 0.5F, -3, 7, std::numeric_limits<float>::quiet_NaN()};
  for (const index channels : {1, 3}) {
    LINNET_REQUIRE_OK(ln::write_pnm(path, {pixels, 2, 3 / channels, channels}));
    const auto image = ln::read_pnm(path);
    LINNET_REQUIRE_OK(image);
    BOOST_TEST((image->height == 2 && image->width == 3 / channels && image->channels == channels));
    const float want[] = {0, 1, 128.0F / 255, 0, 1, 0};
    for (std::size_t i = 0; i < 6; ++i) BOOST_TEST(std::abs(image->pixels[i] - want[i]) < 1e-7F);
  }
  BOOST_TEST(message(ln::write_pnm(path, {pixels, 1, 3, 2})) ==
             path + ": image.channels: expected 1 or 3, got 2");
  BOOST_TEST(message(ln::write_pnm(path, {})) ==
             path + ": image: expected at least one pixel, got none");
  BOOST_TEST((ln::read_pnm(folder.path("none")).error().code == ln::errc::io));
}

BOOST_AUTO_TEST_CASE(bad_files) {
  BOOST_TEST(refused("") == "x: magic: expected P5 or P6, got other bytes");
  BOOST_TEST(refused("P8 1 1 1 1") == "x: magic: expected P5 or P6, got other bytes");
  BOOST_TEST(refused("P2 1 1 1 1") == "x: magic: expected P5 or P6, got P2");
  BOOST_TEST(refused("P5") == "x: width: expected a number from 1 to 1000000000, got none");
  BOOST_TEST(refused("P53 2 5\n") == "x: width: expected a number from 1 to 1000000000, got none");
  BOOST_TEST(refused("P5 0 2 5\n") == "x: width: expected a number from 1 to 1000000000, got 0");
  BOOST_TEST(refused("P5 3 -2 5\n") ==
             "x: height: expected a number from 1 to 1000000000, got none");
  BOOST_TEST(refused("P5 3 # 2 5").find("x: height: ") == 0u);
  BOOST_TEST(refused("P5 3 99999999999999999999 5\n").find("x: height: ") == 0u);
  BOOST_TEST(refused("P5 1 1 65536\n11") ==
             "x: maxval: expected a number from 1 to 65535, got 65536");
  BOOST_TEST(refused("P5 1 1 5") == "x: maxval: expected white space behind it, got another byte");
  BOOST_TEST(refused("P5 3 2 5\n\0\1\2\3\4"s) ==
             "x: pixels: expected 3 x 2 of 1 bytes, got 5 bytes");
  BOOST_TEST(refused("P5 3 2 5\n\0\1\2\3\4\5\n"s) ==
             "x: pixels: expected 3 x 2 of 1 bytes, got 7 bytes");
  BOOST_TEST(refused("P6 1 1 256\n\0\0\0\0\0"s) ==
             "x: pixels: expected 1 x 1 of 6 bytes, got 5 bytes");
  BOOST_TEST(refused("P5 1000000000 1000000000 5\n").find("x: pixels: expected 1000000000 x") ==
             0u);
  BOOST_TEST(refused("P5 2 1 5\n\0\6"s) == "x: sample 1: expected no more than maxval, 5, got 6");
}

// Whatever is cut off or changed, a file is read or refused; nothing is allocated for pixels that
// are not there.
BOOST_AUTO_TEST_CASE(hostile) {
  const std::string good = "P6\n#c\n2 2\n7\n\0\1\2\3\4\5\6\7\0\1\2\3"s;
  LINNET_REQUIRE_OK(ln::parse_pnm(bytes(good)));
  for (std::size_t n = 0; n < good.size(); ++n)
    BOOST_TEST(!ln::parse_pnm(bytes(good.substr(0, n))));
  for (std::size_t n = 0; n < good.size(); ++n)
    for (int c = 0; c < 256; ++c) {
      std::string file = good;
      file[n] = static_cast<char>(c);
      const auto image = ln::parse_pnm(bytes(file));
      if (image)
        BOOST_TEST((std::ssize(image->pixels) == image->height * image->width * image->channels));
    }
  const std::string large = "P6 30000 30000 255\n" + std::string(1000, 'x');
  BOOST_TEST(peak_of([&] { (void)ln::parse_pnm(bytes(large)); }) < 4096u);
  check_failing_allocations("pnm", [&] { return ln::parse_pnm(bytes(good)); });
}

// Files of encoders of images: saved and loaded, and told from others by their patches.
BOOST_AUTO_TEST_CASE(encoders_of_images) {
  static constexpr ln::encoder_shape shape{
      .d_model = 4, .d_ff = 5, .heads = 2, .layers = 1, .context = 4, .types = 0};
  using M = ln::encoder<shape, ln::embedding::patches<4, 4, 1, 2, false>, ln::head::none>;
  using other = ln::encoder<shape, ln::embedding::patches<2, 8, 1, 2, false>, ln::head::none>;
  const scratch_folder folder;
  const std::string path = folder.path("m");
  const auto w = distinct<M>();
  LINNET_REQUIRE_OK(ln::save_safetensors(w, path));
  ln::weights<M> back;
  LINNET_REQUIRE_OK(ln::load_safetensors(back, path));
  BOOST_TEST(same_bytes(w, back));
  ln::weights<other> wrong;
  const std::string why = message(ln::load_safetensors(wrong, path));
  BOOST_TEST(
      why ==
      path + ": embedding: expected patches 2x8x1 by 2 (the model type), got patches 4x4x1 by 2");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::pnm_test
