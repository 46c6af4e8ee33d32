#include <string_view>
int main(int, char** argument) {
  const std::string_view name = argument[1];
  return 2;
}
