# SPDX-License-Identifier: MIT
"""The system's Eigen as a Conan package named as ConanCenter's, which has to be downloaded."""

import os

from conan import ConanFile
from conan.tools.files import copy


class Eigen(ConanFile):
    name = "eigen"
    version = "3.4.0"
    package_type = "header-library"

    def package(self):
        copy(self, "*", "/usr/include/eigen3", os.path.join(self.package_folder, "include/eigen3"))

    def package_info(self):
        self.cpp_info.includedirs = ["include/eigen3"]
        self.cpp_info.set_property("cmake_file_name", "Eigen3")
        self.cpp_info.set_property("cmake_target_name", "Eigen3::Eigen")
        self.cpp_info.set_property("pkg_config_name", "eigen3")
