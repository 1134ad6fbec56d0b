"""SWC as its programs write it: parents, separators, ids, names of columns, units."""

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.skeletons.swc import parse_swc

SWC = """# made by hand
1 0  3 2 1  0.5 -1
2 0  3 2 5  0.5 1   # a comment behind a row

4 0  7.5 2 5 0.5 2
9 3  100 200 300 0.5 -1
"""


def test_swc_is_x_y_z_and_becomes_z_y_x_in_nm():
    graph = parse_swc(SWC, unit_nm=10)
    positions = dict(graph.nodes(data="position"))
    assert positions == {
        1: (10, 20, 30), 2: (50, 20, 30), 4: (50, 20, 75), 9: (3000, 2000, 1000)
    }
    assert sorted(map(sorted, graph.edges)) == [[1, 2], [2, 4]]
    assert nx.number_connected_components(graph) == 2


def test_a_parent_may_stand_below_its_child():
    graph = parse_swc("5 0 0 0 0 1 7\n7 0 0 0 2 1 -1\n", unit_nm=1)
    assert list(graph.edges) == [(5, 7)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 0 1 2 3 1 -1\n2 0 1 2 3 1\n", r"line 2 is '2 0 1 2 3 1', but the columns id type x"),
        ("1 0 a 2 3 1 -1\n", "line 1 is"),
        ("1 0 nan 2 3 1 -1\n", "line 1: the position nan 2.0 3.0 is not finite"),
        ("# c\n1 0 1 2 3 1 -1\n1 0 1 2 4 1 1\n", "line 3: the id 1 was given before"),
        ("1 0 1 2 3 1 -1\n2 0 1 2 4 1 8\n", "line 2: there is no node 8, which is the parent of 2"),
        ("1 0 1 2 3 1 -1\n2 0 0 0 0 1 3\n3 0 0 0 1 1 2\n", "line 2: .* circle"),
        ("1 0 1 2 3 1 1\n", "line 1: .* circle"),
        ("# nothing\n\n", "no nodes"),
    ],
)
def test_errors_name_the_line(text, words):
    with pytest.raises(ValueError, match=words):
        parse_swc(text, unit_nm=1)


POSITIONS = {1: (10.0, 20.0, 30.0), 2: (50.0, 20.0, 30.5)}


def assert_is_two_nodes(text, unit_nm=10):
    graph = parse_swc(text, unit_nm=unit_nm)
    assert dict(graph.nodes(data="position")) == POSITIONS
    assert sorted(map(sorted, graph.edges)) == [[1, 2]]


@pytest.mark.parametrize(
    "text",
    [
        "1 0 3 2 1 0.5 -1\n2 0 3.05 2 5 0.5 1\n",
        "1 0 3 2 1 0.5 0\n2 0 3.05 2 5 0.5 1\n",  # parent 0: a root
        "1,0,3,2,1,0.5,-1\n2,0,3.05,2,5,0.5,1\n",
        "1, 0, 3, 2, 1, 0.5, -1\n2 ,0 ,3.05 ,2 ,5 ,0.5 ,1\n",
        "1\t0\t3\t2\t1\t0.5\t-1\n2\t0\t3.05\t2\t5\t0.5\t1\n",
        "1;0;3;2;1;0.5;-1\n2;0;3.05;2;5;0.5;1\n",
        "1.0 0.0 3 2 1 0.5 -1.0\n2.0 0.0 3.05 2 5 0.5 1.0\n",
        "\ufeff1 0 3 2 1 0.5 -1\r\n2 0 3.05 2 5 0.5 1\r\n",
        "\ufeff# a comment\r\n  1 0 3 2 1 0.5 -1  \r\n2 0 3.05 2 5 0.5 1 # another\r\n\r\n",
        "2 0 3.05 2 5 0.5 1\n1 0 3 2 1 0.5 -1\n",
        "id,type,x,y,z,radius,parent\n1,0,3,2,1,0.5,-1\n2,0,3.05,2,5,0.5,1\n",
        '# c\n"PointNo","Label","X","Y","Z","R","Parent"\n1,0,3,2,1,0.5,-1\n2,0,3.05,2,5,0.5,1\n',
        "1 0 3 2 1 NA -1 extra\n2 0 3.05 2 5 NA 1 extra\n",
        "1 0 3e0 2 +1 0.5 -1\n2 0 30.5e-1 2 5 0.5 1",
    ],
)
def test_all_variants_in_use_are_one_neuron(text):
    assert_is_two_nodes(text)


def test_units_may_differ_by_axis():
    """Positions in voxels of 40 x 4.6 x 4.6 nm; the file has x first, the unit z."""
    graph = parse_swc("1 0 3 2 1 0.5 -1\n", unit_nm=(40.0, 4.6, 5.0))
    assert dict(graph.nodes(data="position")) == {1: (40.0, 9.2, 15.0)}


def test_a_parent_0_is_a_node_where_there_is_a_node_0():
    graph = parse_swc("0 0 0 0 0 1 -1\n1 0 0 0 4 1 0\n", unit_nm=1)
    assert list(graph.edges) == [(0, 1)]


@given(st.integers(0, 2**63 - 1))
def test_ids_of_64_bits_stay_what_they_are(id):
    assert list(parse_swc(f"{id} 0 1 2 3 1 -1", unit_nm=1)) == [id]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 0 1 2 3 1 -1\n2.5 0 1 2 3 1 1\n", r"line 2 is '2.5 0 1 2 3 1 1', but the columns id"),
        ("9007199254740994.0 0 1 2 3 1 -1\n", "line 1 is"),  # may be any of several ids
        ("1 0 1 2 3 1 -1\n2 0 1 2 3 1 -2\n", "line 2: there is no node -2"),
        ("rowId,x,y,z,radius,link,structure\n1,1,2,3,1,-1,0\n", "line 1 names the columns 'rowId x y z"),
        ("1 0 1 2 3 1 -1\nid type x y z radius parent\n", "line 2 is 'id type x y z radius parent'"),
        ("1 0 1,5 2,5 3,5 0,5 -1\n", "line 1 is"),  # decimal commas
        ("1;0;1,5;2,5;3,5;0,5;-1\n", "line 1 is"),
    ],
)
def test_what_could_be_read_wrongly_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_swc(text, unit_nm=1)
